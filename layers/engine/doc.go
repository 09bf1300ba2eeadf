// SPDX-License-Identifier: Apache-2.0

// Package engine is the process in which one event runs: it puts the kernel
// subsystems, a medium and the control layer together, carries the event out
// and exits. The shim starts one engine for each event and supervises it; the
// engine is the only program of mig that traces.
package engine
