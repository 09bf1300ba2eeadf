// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// set gives the fields that a path names a value.
func set(m protoreflect.Message, path, value string) error {
	head, rest, deeper := strings.Cut(path, ".")
	name, index, list := strings.Cut(strings.TrimSuffix(head, "]"), "[")
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if fd == nil {
		return fmt.Errorf("%s has no field %q", m.Descriptor().Name(), name)
	}
	if fd.IsList() != list {
		return fmt.Errorf("field %q: a list: %v", name, fd.IsList())
	}
	if list {
		return setList(m.Mutable(fd).List(), fd, index, rest, deeper, value)
	}
	if deeper {
		return set(m.Mutable(fd).Message(), rest, value)
	}
	v, err := scalar(fd, value)
	if err != nil {
		return err
	}
	m.Set(fd, v)
	return nil
}

func setList(l protoreflect.List, fd protoreflect.FieldDescriptor, index, rest string, deeper bool, value string) error {
	from, to := 0, l.Len()
	switch {
	case index == "+":
		l.Append(l.NewElement())
		from, to = l.Len()-1, l.Len()
	case index != "":
		n, err := strconv.Atoi(index)
		if err != nil || n < 0 || n >= to {
			return fmt.Errorf("field %q: no element %q of %d", fd.Name(), index, to)
		}
		from, to = n, n+1
	}
	for i := from; i < to; i++ {
		if deeper {
			if err := set(l.Get(i).Message(), rest, value); err != nil {
				return err
			}
			continue
		}
		v, err := scalar(fd, value)
		if err != nil {
			return err
		}
		l.Set(i, v)
	}
	return nil
}

func scalar(fd protoreflect.FieldDescriptor, s string) (v protoreflect.Value, err error) {
	var u uint64
	var i int64
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), nil
	case protoreflect.BytesKind:
		b := []byte(s)
		if digits, ok := strings.CutPrefix(s, "hex:"); ok {
			b, err = hex.DecodeString(digits)
		}
		return protoreflect.ValueOfBytes(b), err
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(s == "true"), nil
	case protoreflect.Uint32Kind:
		u, err = strconv.ParseUint(s, 0, 32)
		v = protoreflect.ValueOfUint32(uint32(u))
	case protoreflect.Uint64Kind:
		u, err = strconv.ParseUint(s, 0, 64)
		v = protoreflect.ValueOfUint64(u)
	case protoreflect.Int32Kind:
		i, err = strconv.ParseInt(s, 0, 32)
		v = protoreflect.ValueOfInt32(int32(i))
	case protoreflect.Int64Kind:
		i, err = strconv.ParseInt(s, 0, 64)
		v = protoreflect.ValueOfInt64(i)
	case protoreflect.EnumKind:
		i, err = strconv.ParseInt(s, 0, 32)
		v = protoreflect.ValueOfEnum(protoreflect.EnumNumber(i))
	default:
		err = fmt.Errorf("field %q of kind %s cannot be set", fd.Name(), fd.Kind())
	}
	return v, err
}
