// SPDX-License-Identifier: Apache-2.0

package traffic

import "github.com/io-mig/mig/integration/internal/repo"

// All are the servers that are measured, with a download of so many bytes. dir is an
// existing, empty directory for keys.
func All(tree repo.Tree, dir string, size int64, rate int) ([]Server, error) {
	ssh, err := SSH(dir)
	if err != nil {
		return nil, err
	}
	return []Server{Redis(), Nginx(), PostgreSQL(), Download(tree, size, rate), ssh, WebSocket(tree)}, nil
}
