// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"os"
	"time"

	"errors"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

var errTODO = errors.New("not implemented yet")

// Container is one container.
type Container struct{}

// State is a container's place in the OCI life cycle.
type State string

// The states of a container. "creating" is not among them: a Container exists
// only once it has been created.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StatePaused  State = "paused"
	StateStopped State = "stopped"
)

// Status is a snapshot: the process may change it at any time.
type Status struct {
	State State
	// Pid is the init process in this process's pid namespace, 0 when stopped.
	Pid int
}

// Create makes the container up to OCI's "created": namespaces, cgroup and
// mounts exist, the hooks prestart, createRuntime and createContainer have run,
// and the init process waits for Start. If it fails nothing is left: no
// process, cgroup, mount or state directory. ctx is looked at before the start
// and after it; it cannot interrupt a hook (hooks have a timeout in the spec).
func Create(ctx context.Context, o CreateOptions) (*Container, error) { return nil, errTODO }

// Load opens a container that another process created, for deletion after that
// process died. Its Init is not a child of ours: Done works, but the exit
// status is unknown and reported as 137 (128 + SIGKILL).
// Errors: ErrNotExist if Root/id has no readable state.
func Load(root, id string) (*Container, error) { return nil, errTODO }

// ID, Bundle and StateDir tell what the container was created with.
func (c *Container) ID() string       { return "" }
func (c *Container) Bundle() string   { return "" }
func (c *Container) StateDir() string { return "" }

// Init is the container's first process; never nil.
func (c *Container) Init() *Process { return nil }

// TargetProcess is a copy of the spec's process section: what a frame has to
// become. For a container without a frame it is what runs.
func (c *Container) TargetProcess() *specs.Process { return nil }

// Start lets the init process execute the program. It returns once the init
// has taken the signal; startContainer hooks run after that, inside the
// container. If the init has died it returns an error instead of waiting.
func (c *Container) Start(ctx context.Context) error { return errTODO }

// ReleaseFrame is Start for a frame that an engine in another process has
// seized: the engine decides how long the init takes from stop to stop, so ctx
// is the only limit. No other method waits for it.
func (c *Container) ReleaseFrame(ctx context.Context) error { return errTODO }

// Exec starts another process in the container, with the spec's own seccomp
// filter and the credentials of p, never a frame's. execID is only for messages.
// Errors: ErrNotRunning, ErrPaused.
func (c *Container) Exec(ctx context.Context, execID string, p *specs.Process, s Stdio) (*Process, error) {
	return nil, errTODO
}

// Status reads the state from the kernel.
func (c *Container) Status() (Status, error) { return Status{}, errTODO }

// Signal sends sig to the init or, with all, to every process of the cgroup.
// SIGKILL thaws a paused container, and reaches all of its processes even if it
// shares another's pid namespace. Errors: ErrNotRunning.
func (c *Container) Signal(sig os.Signal, all bool) error { return errTODO }

// Pause freezes the cgroup; it returns when all tasks are frozen. Errors:
// ErrPaused if it is frozen already, ErrNotRunning.
func (c *Container) Pause() error { return errTODO }

// Resume thaws the cgroup. Errors: ErrNotPaused, ErrNotRunning.
func (c *Container) Resume() error { return errTODO }

// Update changes resource limits; fields that are nil keep their value.
func (c *Container) Update(r *specs.LinuxResources) error { return errTODO }

// Stats reads the cgroup's counters.
func (c *Container) Stats() (*cgroups.Stats, error) { return nil, errTODO }

// CgroupPaths are absolute directories: by controller name on v1, one under ""
// on v2.
func (c *Container) CgroupPaths() map[string]string { return nil }

// CgroupV2 tells which of the two CgroupPaths has.
func (c *Container) CgroupV2() bool { return false }

// Pids lists the processes in the container's cgroup and below.
func (c *Container) Pids() ([]int, error) { return nil, errTODO }

// OOM sends once for each out-of-memory event (bursts may be merged). The
// channel is closed when ctx ends or the cgroup is gone.
func (c *Container) OOM(ctx context.Context) (<-chan struct{}, error) { return nil, errTODO }

// Destroy kills what is left, removes the cgroup and the state directory and
// runs the poststop hooks. A second call does nothing. It waits for the init's
// death for as long as ctx allows.
func (c *Container) Destroy(ctx context.Context) error { return errTODO }

// Process is the init of a container or an exec session.
type Process struct{}

// Pid is the process id in this process's pid namespace, also after the exit.
func (p *Process) Pid() int { return 0 }

// Done is closed when the process has exited and its status is known.
func (p *Process) Done() <-chan struct{} { return nil }

// Exit is valid after Done: the exit code, or 128 + the signal's number, and
// the time at which the exit was seen.
func (p *Process) Exit() (status int, at time.Time) { return 0, time.Time{} }

// Signal sends sig to this process only. Errors: ErrNotRunning.
func (p *Process) Signal(sig os.Signal) error { return errTODO }

// Console is the master side of the terminal, or nil. It belongs to the
// process: use Close. Reads from it give EIO once all slaves are closed.
func (p *Process) Console() *os.File { return nil }

// Resize sets the terminal's size in characters. Errors: ErrNoConsole.
func (p *Process) Resize(width, height uint16) error { return errTODO }

// Close releases the terminal. It does not touch the process.
func (p *Process) Close() error { return errTODO }

// Init runs libcontainer's half inside the new container and does not return
// if this process is one ("init" is its first argument). Otherwise it does
// nothing. Call it first in main; or better import runtime/reexec, which runs
// before most other packages are initialised.
func Init() {}

// Features says what this runtime can do, as `runc features` does.
func Features() *features.Features { return nil }

// Spawn runs start, which starts a child of this process and returns its pid,
// such that ReapOrphans does not take the child for an orphan; release must be
// called when the child has been waited for. Every child of a program that uses
// ReapOrphans and is not started by this package must be started so.
func Spawn(start func() (pid int, err error)) (release func(), err error) { return nil, errTODO }

// ReapOrphans waits for dead processes that were reparented to this process
// (see PR_SET_CHILD_SUBREAPER) and that nobody here started. Call it on
// SIGCHLD. While a process is being started it only notes the request, which is
// then served when that start has ended. It returns how many it reaped.
func ReapOrphans() int { return 0 }
