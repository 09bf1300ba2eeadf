// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// For a distance of d bits: x^(d+32) and x^(d-32) modulo the polynomial of
// CRC-32C, their 32 bits in reverse order and shifted left by one, which makes
// up for the bit that a product of reversed factors lacks. TestConstants
// computes them.
DATA by2048<>+0(SB)/8, $0x0dcb17aa4
DATA by2048<>+8(SB)/8, $0x0b9e02b86
GLOBL by2048<>(SB), RODATA|NOPTR, $16
DATA by1536<>+0(SB)/8, $0x0a87ab8a8
DATA by1536<>+8(SB)/8, $0x0ab7aff2a
GLOBL by1536<>(SB), RODATA|NOPTR, $16
DATA by1024<>+0(SB)/8, $0x06992cea2
DATA by1024<>+8(SB)/8, $0x00d3b6092
GLOBL by1024<>(SB), RODATA|NOPTR, $16
DATA by512<>+0(SB)/8, $0x0740eef02
DATA by512<>+8(SB)/8, $0x09e4addf8
GLOBL by512<>(SB), RODATA|NOPTR, $16

// move multiplies the 128-bit lanes of acc by K and adds next, into acc.
#define move(acc, K, next) \
	VPCLMULQDQ $0x00, K, acc, Z8; \
	VPCLMULQDQ $0x11, K, acc, Z9; \
	VMOVDQA64 Z8, acc; \
	VPTERNLOGQ $0x96, next, Z9, acc

// func fold(rest *[64]byte, p *byte, n int, state uint32)
TEXT ·fold(SB), NOSPLIT, $0-28
	MOVQ rest+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL state+24(FP), AX
	VMOVD AX, X5
	VMOVDQU64 0(SI), Z0
	VPXORQ Z5, Z0, Z0
	VMOVDQU64 64(SI), Z1
	VMOVDQU64 128(SI), Z2
	VMOVDQU64 192(SI), Z3
	VBROADCASTI32X4 by2048<>(SB), Z4
	ADDQ $256, SI
	SUBQ $256, CX
	JZ done

loop:
	move(Z0, Z4, 0(SI))
	move(Z1, Z4, 64(SI))
	move(Z2, Z4, 128(SI))
	move(Z3, Z4, 192(SI))
	ADDQ $256, SI
	SUBQ $256, CX
	JNZ loop

done:
	VBROADCASTI32X4 by1536<>(SB), Z5
	VBROADCASTI32X4 by1024<>(SB), Z6
	VBROADCASTI32X4 by512<>(SB), Z7
	move(Z0, Z5, Z3)
	move(Z1, Z6, Z0)
	move(Z2, Z7, Z1)
	VMOVDQU64 Z2, 0(DI)
	VZEROUPPER
	RET
