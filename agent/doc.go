// SPDX-License-Identifier: Apache-2.0

// Package agent lets an application take part in the checkpoints and moves of
// the container that it runs in. It is optional: containers are checkpointed and
// moved without their applications knowing of it. What an application gains is
// that its hooks run before its state is taken and after it goes on, in the
// original or in the copy, that its threads can meet at a Barrier meanwhile, and
// that it can ask for its own checkpoint or move.
//
// The container needs the annotation io.mig/agent=true, which mounts the
// socket. Elsewhere Dial returns ErrNoAgent, and the application goes on without.
//
//	c, err := agent.Dial(agent.Hooks{
//		Before: func(ctx context.Context, e agent.Event) error { return db.Flush(ctx) },
//		After: func(o agent.Outcome) {
//			if o.Restored {
//				reseed(o.Generation)
//			}
//		},
//	})
//
// The package needs nothing beside the standard library. docs/agent.md has the
// protocol and a header for C.
package agent
