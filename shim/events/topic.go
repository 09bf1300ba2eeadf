// SPDX-License-Identifier: Apache-2.0

package events

import (
	"fmt"

	eventapi "github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
)

// Topic is the topic that containerd's subscribers expect for an event
// (containerd v2.4.2 core/runtime/events.go).
func Topic(event proto.Message) (string, error) {
	switch event.(type) {
	case *eventapi.TaskCreate:
		return "/tasks/create", nil
	case *eventapi.TaskStart:
		return "/tasks/start", nil
	case *eventapi.TaskOOM:
		return "/tasks/oom", nil
	case *eventapi.TaskExit:
		return "/tasks/exit", nil
	case *eventapi.TaskDelete:
		return "/tasks/delete", nil
	case *eventapi.TaskExecAdded:
		return "/tasks/exec-added", nil
	case *eventapi.TaskExecStarted:
		return "/tasks/exec-started", nil
	case *eventapi.TaskPaused:
		return "/tasks/paused", nil
	case *eventapi.TaskResumed:
		return "/tasks/resumed", nil
	case *eventapi.TaskCheckpointed:
		return "/tasks/checkpointed", nil
	}
	return "", fmt.Errorf("events of type %T have no topic", event)
}
