// SPDX-License-Identifier: Apache-2.0

package procfs

// IPCPerm is what the three kinds of System V IPC object share
// (svipc(7)). Ids are those of the reader's user namespace.
type IPCPerm struct {
	Key                  int32
	ID                   int
	Mode                 uint32 // permission bits, and SHM_DEST 01000, SHM_LOCKED 02000
	UID, GID, CUID, CGID uint32
}

// SysVShm is a shared memory segment. Times are seconds since 1970.
type SysVShm struct {
	IPCPerm
	Size                        uint64 // bytes
	CreatorPid, LastPid         int
	Attached                    uint64
	AttachT, DetachT, ChangeT   uint64
	ResidentBytes, SwappedBytes uint64
}

// SysVMsg is a message queue.
type SysVMsg struct {
	IPCPerm
	Bytes, Messages           uint64
	LastSendPid, LastRecvPid  int
	SendT, ReceiveT, ChangedT uint64
}

// SysVSem is a semaphore set.
type SysVSem struct {
	IPCPerm
	Semaphores   uint64
	OpT, ChangeT uint64
}

// ParseSysVShm reads sysvipc/shm (ipc/shm.c, sysvipc_shm_proc_show).
func ParseSysVShm(data []byte) ([]SysVShm, error) { return shmTable().parse("sysvipc/shm", data) }

// ParseSysVMsg reads sysvipc/msg (ipc/msg.c).
func ParseSysVMsg(data []byte) ([]SysVMsg, error) { return msgTable().parse("sysvipc/msg", data) }

// ParseSysVSem reads sysvipc/sem (ipc/sem.c).
func ParseSysVSem(data []byte) ([]SysVSem, error) { return semTable().parse("sysvipc/sem", data) }

// SysVShm reads sysvipc/shm: the IPC namespace of the READER, since these
// files are not per task.
func (f FS) SysVShm() ([]SysVShm, error) { return shmTable().stream(f, "sysvipc/shm") }

// SysVMsg reads sysvipc/msg of the reader's IPC namespace.
func (f FS) SysVMsg() ([]SysVMsg, error) { return msgTable().stream(f, "sysvipc/msg") }

// SysVSem reads sysvipc/sem of the reader's IPC namespace.
func (f FS) SysVSem() ([]SysVSem, error) { return semTable().stream(f, "sysvipc/sem") }

func shmTable() *table[SysVShm] {
	return &table[SysVShm]{heading: "key ", row: func(c *cursor) SysVShm {
		s := SysVShm{IPCPerm: c.ipcName()}
		s.Size = c.dec("size")
		s.CreatorPid, s.LastPid = c.int("cpid"), c.int("lpid")
		s.Attached = c.dec("nattch")
		c.ipcOwner(&s.IPCPerm)
		s.AttachT, s.DetachT, s.ChangeT = c.dec("atime"), c.dec("dtime"), c.dec("ctime")
		s.ResidentBytes, s.SwappedBytes = c.dec("rss"), c.dec("swap")
		_ = c.end()
		return s
	}}
}

func msgTable() *table[SysVMsg] {
	return &table[SysVMsg]{heading: "key ", row: func(c *cursor) SysVMsg {
		s := SysVMsg{IPCPerm: c.ipcName()}
		s.Bytes, s.Messages = c.dec("cbytes"), c.dec("qnum")
		s.LastSendPid, s.LastRecvPid = c.int("lspid"), c.int("lrpid")
		c.ipcOwner(&s.IPCPerm)
		s.SendT, s.ReceiveT, s.ChangedT = c.dec("stime"), c.dec("rtime"), c.dec("ctime")
		_ = c.end()
		return s
	}}
}

func semTable() *table[SysVSem] {
	return &table[SysVSem]{heading: "key ", row: func(c *cursor) SysVSem {
		s := SysVSem{IPCPerm: c.ipcName()}
		s.Semaphores = c.dec("nsems")
		c.ipcOwner(&s.IPCPerm)
		s.OpT, s.ChangeT = c.dec("otime"), c.dec("ctime")
		_ = c.end()
		return s
	}}
}

// ipcName reads key, id and mode.
func (c *cursor) ipcName() IPCPerm {
	return IPCPerm{Key: int32(c.int("key")), ID: c.int("id"),
		Mode: uint32(c.number(c.field("perms"), 8, 32, "perms"))}
}

func (c *cursor) ipcOwner(p *IPCPerm) {
	p.UID, p.GID, p.CUID, p.CGID = c.dec32("uid"), c.dec32("gid"), c.dec32("cuid"), c.dec32("cgid")
}
