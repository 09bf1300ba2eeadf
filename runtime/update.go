// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes the cgroup's limits. Fields that are nil or empty keep their
// value; device rules cannot be changed. The result is stored with the container's
// state. If a limit is refused by the kernel, the old ones are set again.
// Errors: ErrNotRunning.
func (c *Container) Update(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	c.updateMu.Lock()
	defer c.updateMu.Unlock()
	return c.errorf("update", c.update(r))
}

func (c *Container) update(r *specs.LinuxResources) error {
	if c.init.exited() {
		return ErrNotRunning
	}
	v, err := c.view()
	if err != nil {
		return err
	}
	config := v.Config()
	if config.Cgroups == nil || config.Cgroups.Resources == nil {
		return errors.New("the container has no cgroup configuration")
	}
	// Config shares its pointers with the view, which sets the old values
	// again after a failure: change a copy.
	res, err := copyResources(config.Cgroups.Resources)
	if err != nil {
		return err
	}
	mergeResources(res, r)
	// A plug-in may have added device rules behind our back (GPUs): keep off.
	res.SkipDevices = true
	cg := *config.Cgroups
	cg.Resources = res
	config.Cgroups = &cg
	return v.Set(config)
}

func copyResources(r *cgroups.Resources) (*cgroups.Resources, error) {
	var out cgroups.Resources
	data, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("copy cgroup resources: %w", err)
	}
	return &out, nil
}

// set stores what is given and keeps what is not.
func set[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}

func mergeResources(dst *cgroups.Resources, r *specs.LinuxResources) {
	mergeMemory(dst, r.Memory)
	mergeCPU(dst, r.CPU)
	mergeBlockIO(dst, r.BlockIO)
	if r.Pids != nil && r.Pids.Limit != nil {
		limit := *r.Pids.Limit
		dst.PidsLimit = &limit
	}
	for _, h := range r.HugepageLimits {
		mergeHugepages(dst, h)
	}
	if len(r.Unified) > 0 {
		dst.Unified = r.Unified
	}
}

func mergeMemory(dst *cgroups.Resources, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	set(&dst.Memory, m.Limit)
	set(&dst.MemoryReservation, m.Reservation)
	set(&dst.MemorySwap, m.Swap)
	set(&dst.MemoryCheckBeforeUpdate, m.CheckBeforeUpdate)
	if m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		// v1 does not take a swap limit without a memory limit.
		dst.MemorySwap = 0
	}
}

func mergeCPU(dst *cgroups.Resources, c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	// Period and quota are written together; one that is not given keeps its
	// value, so that the pair stays what was meant.
	set(&dst.CpuPeriod, c.Period)
	set(&dst.CpuQuota, c.Quota)
	set(&dst.CpuRtPeriod, c.RealtimePeriod)
	set(&dst.CpuRtRuntime, c.RealtimeRuntime)
	if c.Burst != nil {
		dst.CpuBurst = c.Burst
	}
	if c.Shares != nil {
		dst.CpuShares = *c.Shares
		dst.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*c.Shares)
	}
	if c.Idle != nil {
		dst.CPUIdle = c.Idle
		if c.Shares == nil {
			// cpu.weight cannot be written while cpu.idle is set (v2).
			dst.CpuShares, dst.CpuWeight = 0, 0
		}
	}
	if c.Cpus != "" {
		dst.CpusetCpus = c.Cpus
	}
	if c.Mems != "" {
		dst.CpusetMems = c.Mems
	}
}

func mergeHugepages(dst *cgroups.Resources, h specs.LinuxHugepageLimit) {
	for _, old := range dst.HugetlbLimit {
		if old.Pagesize == h.Pagesize {
			old.Limit = h.Limit
			return
		}
	}
	dst.HugetlbLimit = append(dst.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
}
