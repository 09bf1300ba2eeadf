// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"strings"

	"github.com/io-mig/mig/integration/internal/image"
)

// nginx serves one short page, over connections that are kept.
var nginx = image.Image{
	Name: "mig.test/nginx:1", Command: []string{"nginx", "-c", "/etc/nginx.conf", "-g", "daemon off;"}, Programs: []string{"nginx"},
	Files: map[string]string{
		"/etc/nginx.conf": `worker_processes 2;
error_log /dev/null;
pid /tmp/nginx.pid;
user nobody nogroup;
events { worker_connections 256; }
http { access_log off; keepalive_requests 100000000; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
server { listen 80; root /page; } }
`,
		"/page/index.html": "hello\n", "/var/log/nginx/error.log": "", "/var/lib/nginx/keep": "",
	},
}

// Nginx has wrk with 20 connections that are kept.
func Nginx() Server {
	return Server{Name: "nginx", Image: nginx, Port: 80, Work: func(_ context.Context, c Client, ip string) (Load, error) {
		return &tool{client: c, command: "wrk -t 2 -c 20 -d %ds --timeout 10s http://" + ip + "/index.html", read: readWrk}, nil
	}}
}

// readWrk reads what wrk prints, the longest latency among it.
func readWrk(out string) (seen Seen, err error) {
	longest, err := find(out, `Latency\s+\S+\s+\S+\s+(\S+)`)
	seen.Silence = milliseconds(longest)
	seen.Reset = count(out, `Socket errors: .*read (\d+)`) + count(out, `Socket errors: .*write (\d+)`)
	seen.Failed = count(out, `Socket errors: connect (\d+)`) + count(out, `Socket errors: .*timeout (\d+)`) + count(out, `Non-2xx or 3xx responses: (\d+)`)
	if seen.Reset+seen.Failed > 0 {
		seen.Trouble = "wrk: " + strings.TrimSpace(out)
	}
	return seen, err
}
