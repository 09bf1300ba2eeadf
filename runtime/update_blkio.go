// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func mergeBlockIO(dst *cgroups.Resources, b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	set(&dst.BlkioWeight, b.Weight)
	set(&dst.BlkioLeafWeight, b.LeafWeight)
	for _, d := range b.WeightDevice {
		dst.BlkioWeightDevice = mergeWeight(dst.BlkioWeightDevice, d)
	}
	for _, m := range []struct {
		dst *[]*cgroups.ThrottleDevice
		src []specs.LinuxThrottleDevice
	}{
		{&dst.BlkioThrottleReadBpsDevice, b.ThrottleReadBpsDevice},
		{&dst.BlkioThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice},
		{&dst.BlkioThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice},
		{&dst.BlkioThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range m.src {
			*m.dst = mergeThrottle(*m.dst, d)
		}
	}
}

// mergeWeight changes a device's entry or adds one.
func mergeWeight(devices []*cgroups.WeightDevice, d specs.LinuxWeightDevice) []*cgroups.WeightDevice {
	for _, old := range devices {
		if old.Major == d.Major && old.Minor == d.Minor {
			set(&old.Weight, d.Weight)
			set(&old.LeafWeight, d.LeafWeight)
			return devices
		}
	}
	var weight, leaf uint16
	set(&weight, d.Weight)
	set(&leaf, d.LeafWeight)
	return append(devices, cgroups.NewWeightDevice(d.Major, d.Minor, weight, leaf))
}

// mergeThrottle changes a device's entry or adds one.
func mergeThrottle(devices []*cgroups.ThrottleDevice, d specs.LinuxThrottleDevice) []*cgroups.ThrottleDevice {
	for _, old := range devices {
		if old.Major == d.Major && old.Minor == d.Minor {
			old.Rate = d.Rate
			return devices
		}
	}
	return append(devices, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
}
