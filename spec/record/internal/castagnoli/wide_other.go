// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package castagnoli

const (
	stride = 256
	wide   = false
)

func folded(uint32, []byte) uint32 { panic("castagnoli: not on this architecture") }
