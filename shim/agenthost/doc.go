// SPDX-License-Identifier: Apache-2.0

// Package agenthost is the shim's side of an application's agent: the socket in
// the container, by which applications are asked to come to rest before their
// state is taken and told what came of it (docs/agent.md). What comes over it is
// the container's and untrusted.
package agenthost
