// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
)

const helloMagic = "MIGW"

// Greeting is what a Hello says.
type Greeting struct {
	// Index is the number of this connection of Count. One that is not for data is
	// number 0 of 1.
	Index, Count int
	Purpose      Purpose
	Token        Token
}

// Append appends the whole Hello frame.
func (g Greeting) Append(b []byte) []byte {
	b = append(AppendHeader(b, Hello, HelloSize), helloMagic...)
	b = binary.LittleEndian.AppendUint16(b, Major)
	b = binary.LittleEndian.AppendUint16(b, Minor)
	b = binary.LittleEndian.AppendUint16(b, uint16(g.Index))
	b = binary.LittleEndian.AppendUint16(b, uint16(g.Count))
	b = append(b, byte(g.Purpose), 0, 0, 0)
	return append(b, g.Token[:]...)
}

// DecodeHello reads the HelloSize bytes of a Hello.
func DecodeHello(b []byte) (g Greeting, err error) {
	if len(b) != HelloSize || string(b[:4]) != helloMagic {
		return g, fmt.Errorf("%w: no hello: % x", ErrProtocol, b[:min(len(b), HelloSize)])
	}
	if major := binary.LittleEndian.Uint16(b[4:]); major != Major {
		return g, fmt.Errorf("%w: the peer speaks version %d.%d, this mig %d.%d: use releases of the same major version",
			ErrProtocol, major, binary.LittleEndian.Uint16(b[6:]), Major, Minor)
	}
	g.Index, g.Count = int(binary.LittleEndian.Uint16(b[8:])), int(binary.LittleEndian.Uint16(b[10:]))
	g.Purpose = Purpose(b[12])
	copy(g.Token[:], b[16:])
	if g.Count < 1 || g.Count > MaxConnections || g.Index >= g.Count || b[13]|b[14]|b[15] != 0 ||
		g.Purpose != Data && (g.Purpose != Urgent && g.Purpose != Resolve || g.Count != 1) {
		return g, fmt.Errorf("%w: hello of %s connection %d of %d", ErrProtocol, g.Purpose, g.Index, g.Count)
	}
	return g, nil
}
