// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
)

// postgres keeps its data in memory.
var postgres = image.Image{
	Name: "mig.test/postgres:1", Programs: []string{"/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/15/bin/initdb"},
	Trees: []string{"/usr/lib/postgresql/15/lib", "/usr/share/postgresql/15", "/usr/share/zoneinfo/Etc"},
	Command: []string{"sh", "-c", `mkdir -m 700 /tmp/data && chown 1000:1000 /tmp/data && export LC_ALL=C PATH=$PATH:/usr/lib/postgresql/15/bin && cd /tmp &&
		su -s /bin/sh user -c "initdb -D /tmp/data -A trust -U user --no-sync" >/tmp/log 2>&1 &&
		echo "host all all 0.0.0.0/0 trust" >>/tmp/data/pg_hba.conf &&
		exec su -s /bin/sh user -c "exec postgres -D /tmp/data -c listen_addresses=0.0.0.0 -c unix_socket_directories= -c fsync=off"`},
}

// PostgreSQL has pgbench, whose transactions are logged one by one.
func PostgreSQL() Server {
	return Server{Name: "PostgreSQL", Image: postgres, Port: 5432, Work: postgresWork}
}

func postgresWork(ctx context.Context, c Client, ip string) (Load, error) {
	to := " -h " + ip + " -U user postgres"
	err := c.await(ctx, "PostgreSQL answers", func() bool {
		_, err := c.run(ctx, "psql -c 'select 1'"+to)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.run(ctx, "pgbench -i -s 1 -q"+to); err != nil {
		return nil, err
	}
	l := &postgresLoad{to: to}
	l.tool = &tool{
		client: c, read: l.read,
		command: "sh -c 'cd " + c.Dir + " && exec pgbench -n -c 8 -j 2 -T %d --max-tries=1 -l" + to + "'",
	}
	return l, nil
}

type postgresLoad struct {
	*tool
	to string // arguments of PostgreSQL's clients
}

// read reads what pgbench prints, and the logs of its transactions.
func (l *postgresLoad) read(out string) (seen Seen, err error) {
	failed, err := find(out, `number of failed transactions: (\d+)`)
	if err != nil {
		return seen, err
	}
	if seen.Failed = int(failed); seen.Failed > 0 {
		seen.Trouble = "pgbench: " + strings.TrimSpace(out)
	}
	logs, err := filepath.Glob(filepath.Join(l.client.Dir, "pgbench_log.*"))
	if err == nil && len(logs) == 0 {
		err = fmt.Errorf("pgbench has logged nothing: %s", out)
	}
	if err != nil {
		return seen, err
	}
	for _, name := range logs {
		longest, err := longestTransaction(name)
		if err != nil {
			return seen, err
		}
		seen.Silence = max(seen.Silence, longest)
		if err := os.Remove(name); err != nil {
			return seen, err
		}
	}
	return seen, nil
}

// Close compares the sums that every transaction has changed alike.
func (l *postgresLoad) Close() error {
	_ = l.tool.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := l.client.run(ctx, "psql -tA -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)'"+l.to)
	if err == nil && strings.TrimSpace(out) != "t" {
		err = fmt.Errorf("the balance is wrong: %s", out)
	}
	return err
}

// longestTransaction reads a log of pgbench's: client, number, microseconds, ...
func longestTransaction(name string) (longest time.Duration, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			return 0, fmt.Errorf("%s: %q", name, line)
		}
		us, err := strconv.Atoi(f[2])
		if err != nil {
			return 0, fmt.Errorf("%s: %q", name, line)
		}
		longest = max(longest, time.Duration(us)*time.Microsecond)
	}
	return longest, nil
}
