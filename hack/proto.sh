#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Generates the Go code of spec/state/*.proto. Needs protoc (Debian package
# protobuf-compiler) and protoc-gen-go (go install google.golang.org/protobuf/cmd/protoc-gen-go).
set -eu
cd "$(dirname "$0")/.."
protoc --proto_path=. --go_out=. --go_opt=paths=source_relative spec/state/*.proto
