// SPDX-License-Identifier: Apache-2.0

// Package control is the core of a migration: it runs events. It declares what
// it consumes (Subsystem, Medium, Container) and touches no kernel itself, so
// every order of steps, failures and time-outs is tested without root.
package control
