// SPDX-License-Identifier: Apache-2.0

// Package request is the single entry to mig: it takes a request, checks it,
// picks the transfer strategy, hands out an id and a token, has an engine do
// it, and keeps a status that others can read while it runs and afterwards.
package request
