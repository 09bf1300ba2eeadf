// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ownPrefix begins the names of mig's own tables, which are not carried: those of
// package netdrop, and Silent's.
const ownPrefix = "mig"

// Of nf_tables.h.
const (
	tableUserdata = 6 // NFTA_TABLE_USERDATA
	chainFlags    = 10
	chainUserdata = 12
	chainCounters = 8
	setExpr       = 17 // NFTA_SET_EXPR
	setExprs      = 18 // NFTA_SET_EXPRESSIONS
	objectData    = 4  // NFTA_OBJ_DATA
	objectUser    = 8
	flowTable     = 1 // NFTA_FLOWTABLE_TABLE
	flowName      = 2
	flowHook      = 3
	flowFlags     = 7
)

// tableShape is what is kept of a kind of change: the attributes that make a
// thing, not those that say what has become of it.
type tableShape struct {
	// table is the attribute with the table's name.
	table uint16
	keep  []uint16
}

var tableShapes = map[uint16]tableShape{
	unix.NFT_MSG_NEWTABLE: {unix.NFTA_TABLE_NAME, []uint16{unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_FLAGS, tableUserdata}},
	unix.NFT_MSG_NEWCHAIN: {unix.NFTA_CHAIN_TABLE, []uint16{
		unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE,
		chainCounters, chainFlags, chainUserdata,
	}},
	unix.NFT_MSG_NEWSET: {unix.NFTA_SET_TABLE, []uint16{
		unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE,
		unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL,
		unix.NFTA_SET_USERDATA, unix.NFTA_SET_OBJ_TYPE, setExpr, setExprs,
	}},
	unix.NFT_MSG_NEWSETELEM: {unix.NFTA_SET_ELEM_LIST_TABLE, []uint16{
		unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET, unix.NFTA_SET_ELEM_LIST_ELEMENTS,
	}},
	unix.NFT_MSG_NEWOBJ: {unix.NFTA_OBJ_TABLE, []uint16{
		unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE, objectData, objectUser,
	}},
	unix.NFT_MSG_NEWFLOWTABLE: {flowTable, []uint16{
		flowTable, flowName, flowHook, flowFlags,
	}},
	unix.NFT_MSG_NEWRULE: {unix.NFTA_RULE_TABLE, []uint16{
		unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_RULE_USERDATA,
	}},
}

// tableOrder is that in which changes are made: what is named comes first. Chains
// name nothing, elements of sets and rules name chains, sets and objects.
var tableOrder = []struct{ get, made uint16 }{
	{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWTABLE},
	{unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN},
	{unix.NFT_MSG_GETOBJ, unix.NFT_MSG_NEWOBJ},
	{unix.NFT_MSG_GETFLOWTABLE, unix.NFT_MSG_NEWFLOWTABLE},
	{unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET},
	{unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM},
	{unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE},
}

// Tables are the changes that make the namespace's tables of nf_tables, in their
// order. Tables that belong to a process, and mig's own, are not among them.
func Tables(ns *os.File) ([]Change, error) {
	n, err := openNetfilter(ns)
	if err != nil {
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, nil
		}
		return nil, err
	}
	defer n.close()
	var all []Change
	owned := map[string]bool{}
	for _, o := range tableOrder {
		list, err := n.every(o.get, all)
		if err != nil {
			return nil, fmt.Errorf("nf_tables: list: %w", err)
		}
		for _, c := range list {
			t, err := TrimChange(c)
			if err != nil {
				return nil, err
			}
			if o.made == unix.NFT_MSG_NEWTABLE && isOwned(t) {
				owned[t.table()] = true
			}
			if !owned[t.table()] && !own(t) {
				all = append(all, t)
			}
		}
		if len(all) == 0 {
			return nil, nil // no table, nothing in it
		}
	}
	return all, nil
}

// every asks for everything of a kind; elements are asked for by set.
func (n *netfilter) every(get uint16, before []Change) (all []Change, err error) {
	if get != unix.NFT_MSG_GETSETELEM {
		return n.list(get, unix.AF_UNSPEC, nil)
	}
	for _, c := range before {
		if c.Kind != unix.NFT_MSG_NEWSET {
			continue
		}
		list, err := parse(c.Attributes)
		if err != nil {
			return nil, err
		}
		b := putString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, text(list, unix.NFTA_SET_TABLE))
		b = putString(b, unix.NFTA_SET_ELEM_LIST_SET, text(list, unix.NFTA_SET_NAME))
		some, err := n.list(get, c.Family, b)
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			if !empty(e) {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// empty: a set without elements.
func empty(c Change) bool {
	list, err := parse(c.Attributes)
	return err == nil && len(find(list, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) == 0
}

// table is a name that tells tables apart.
func (c Change) table() string {
	list, err := parse(c.Attributes)
	if err != nil {
		return ""
	}
	return fmt.Sprint(c.Family, " ", text(list, tableShapes[c.Kind].table))
}

func own(c Change) bool {
	_, name, _ := strings.Cut(c.table(), " ")
	return ownTable(name)
}

func ownTable(name string) bool {
	return name == ownPrefix || strings.HasPrefix(name, ownPrefix+"-")
}

func isOwned(c Change) bool {
	list, err := parse(c.Attributes)
	v := find(list, unix.NFTA_TABLE_FLAGS)
	return err == nil && len(v) == 4 && binary.BigEndian.Uint32(v)&tableOwned != 0
}

// TrimChange cuts a change down to what makes a thing, which also checks it.
func TrimChange(c Change) (Change, error) {
	shape, ok := tableShapes[c.Kind]
	if !ok {
		return c, fmt.Errorf("nf_tables: a change of kind %d", c.Kind)
	}
	list, err := parse(c.Attributes)
	if err != nil {
		return c, err
	}
	out := Change{Kind: c.Kind, Family: c.Family}
	for _, a := range list {
		if slices.Contains(shape.keep, a.plain()) {
			out.Attributes = put(out.Attributes, a.kind, a.value)
		}
	}
	if name := text(list, shape.table); name == "" {
		return c, errors.New("nf_tables: a change of no table")
	}
	return out, nil
}

// MakeTables makes the tables of a list of changes, all or none, in the place of
// those that are there but for mig's own.
func MakeTables(ns *os.File, list []Change) error {
	there, err := Tables(ns)
	if err != nil || len(there)+len(list) == 0 {
		return err
	}
	n, err := openNetfilter(ns)
	if err != nil {
		return err
	}
	defer n.close()
	var all []Change
	for _, c := range there {
		if c.Kind == unix.NFT_MSG_NEWTABLE {
			attributes, err := parse(c.Attributes)
			if err != nil {
				return err
			}
			all = append(all, Change{Kind: unix.NFT_MSG_DELTABLE, Family: c.Family, Attributes: putString(nil, unix.NFTA_TABLE_NAME, text(attributes, unix.NFTA_TABLE_NAME))})
		}
	}
	for i, c := range list {
		if c, err = TrimChange(c); err != nil {
			return err
		}
		if own(c) || c.Kind == unix.NFT_MSG_NEWTABLE && isOwned(c) {
			return fmt.Errorf("nf_tables: table %s is none that is carried", c.table())
		}
		c.flags = unix.NLM_F_CREATE
		switch c.Kind {
		case unix.NFT_MSG_NEWSET: // the kernel wants a number for it
			c.Attributes = put(c.Attributes, unix.NFTA_SET_ID, binary.BigEndian.AppendUint32(nil, uint32(i+1)))
		case unix.NFT_MSG_NEWRULE:
			c.flags |= unix.NLM_F_APPEND
		}
		all = append(all, c)
	}
	if err := n.batch(all); err != nil {
		return fmt.Errorf("nf_tables: make %d tables, rules and the like: %w", len(list), err)
	}
	return nil
}
