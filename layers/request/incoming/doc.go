// SPDX-License-Identifier: Apache-2.0

// Package incoming accepts the connections of moves that come to this host.
//
//	peer            acceptor (migd)                      engine
//	  TCP, preamble ->
//	                control, resolve: Handle
//	                data, urgent:     token expected?
//	                                  TOKEN.sock      <- connect (Dial)
//	                                  preamble and descriptor  ->
//	  TLS handshake, frames  <------------------------------>
//
// The acceptor reads the 32 clear bytes of the preamble and nothing else. It is
// open to anybody who can reach the port: everything that a stranger can make it
// hold has a bound and a time-out, and nothing that a stranger sends reaches an
// engine unless its token is expected; TLS decides there.
package incoming
