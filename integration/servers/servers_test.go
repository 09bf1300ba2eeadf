// SPDX-License-Identifier: Apache-2.0

package servers

// server is one entry of the table: shell scripts that run in the container,
// behind files/common.sh.
type server struct {
	name string
	// start is the container's first process: it starts the server and its
	// clients and waits.
	start string
	// clients is how many counters in /load must grow.
	clients int
	// verify is run at the end: what it prints with a failure is the reason.
	verify string
}

const python = `python3 -u`

// servers of Debian's packages, see hack/deps.sh.
var servers = []server{
	{
		name: "redis", clients: 4,
		start: `redis-server --port 6379 --save "" --dir /load --dbfilename dump.rdb --enable-debug-command yes & listening 6379
			redis-cli DEBUG POPULATE 100000 key 100; load 4 redis 127.0.0.1:6379
			while :; do redis-cli BGSAVE >/dev/null; sleep 0.2; done & wait`,
		verify: `[ "$(redis-cli DBSIZE)" -ge 100004 ] && redis-cli GET key:4711 | grep -q value:4711 &&
			sleep 1 && redis-cli INFO persistence | grep -q rdb_last_bgsave_status:ok && redis-check-rdb /load/dump.rdb`,
	},
	{
		name: "memcached", clients: 4,
		start:  `memcached -u nobody -t 4 & listening 11211; load 4 memcached 127.0.0.1:11211; wait`,
		verify: `printf 'stats\r\nquit\r\n' | busybox nc 127.0.0.1 11211 | grep -q "STAT threads 4"`,
	},
	{
		name: "nginx", clients: 4,
		start: `cat >/load/nginx.conf <<-'END'
			worker_processes 4;
			error_log /load/error.log;
			pid /run/nginx-test.pid;
			events { worker_connections 256; }
			http { access_log off; keepalive_requests 100000000; server { listen 127.0.0.1:8080; root /files; } }
			END
			nginx -c /load/nginx.conf -g 'daemon off;' & listening 8080; load 4 http 127.0.0.1:8080/common.sh; wait`,
		verify: `nginx -c /load/nginx.conf -s reload && sleep 0.5 && busybox wget -qO- http://127.0.0.1:8080/load.py | cmp - /files/load.py`,
	},
	{
		name: "apache", clients: 4,
		start: `cat >/load/apache.conf <<-'END'
			LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
			LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
			ServerName localhost
			Listen 127.0.0.1:8081
			PidFile /run/apache-test.pid
			ErrorLog /load/apache.log
			DocumentRoot /files
			User nobody
			Group nogroup
			StartServers 6
			MaxKeepAliveRequests 0
			KeepAliveTimeout 120
			<Directory /files>
			Require all granted
			</Directory>
			END
			apache2 -f /load/apache.conf -DFOREGROUND & listening 8081; load 4 http 127.0.0.1:8081/common.sh; wait`,
		verify: `apache2 -f /load/apache.conf -k graceful; sleep 0.5; busybox wget -qO- http://127.0.0.1:8081/load.py | cmp - /files/load.py`,
	},
	{
		name: "haproxy", clients: 4,
		start: `cat >/load/haproxy.conf <<-'END'
			global
			    stats socket /load/haproxy.sock level admin
			defaults
			    mode http
			    timeout connect 60s
			    timeout client 60s
			    timeout server 60s
			listen front
			    bind 127.0.0.1:8082
			    server back 127.0.0.1:8083 check
			END
			(cd /files && busybox httpd -f -p 127.0.0.1:8083) & listening 8083
			haproxy -W -db -f /load/haproxy.conf & listening 8082; load 4 http 127.0.0.1:8082/common.sh; wait`,
		verify: `busybox wget -qO- http://127.0.0.1:8082/load.py | cmp - /files/load.py`,
	},
	{
		name: "php-fpm", clients: 2,
		start: `cat >/load/fpm.conf <<-'END'
			[global]
			error_log = /load/fpm.log
			[www]
			user = nobody
			group = nogroup
			listen = 127.0.0.1:9000
			pm = static
			pm.max_children = 4
			END
			cat >/load/nginx.conf <<-'END'
			error_log /load/error.log;
			pid /run/nginx-test.pid;
			events { }
			http { access_log off; keepalive_requests 100000000; server { listen 127.0.0.1:8084; root /load;
				location ~ \.php$ { include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME /load$fastcgi_script_name; fastcgi_pass 127.0.0.1:9000; } } }
			END
			echo '<?php echo md5(str_repeat("x", 100000));' >/load/sum.php
			php-fpm8.2 -F -y /load/fpm.conf & listening 9000
			nginx -c /load/nginx.conf -g 'daemon off;' & listening 8084; load 2 http 127.0.0.1:8084/sum.php; wait`,
		verify: `[ "$(busybox wget -qO- http://127.0.0.1:8084/sum.php)" = "$(head -c 100000 /dev/zero | tr '\0' x | md5sum | cut -d' ' -f1)" ]`,
	},
	{
		name: "node", clients: 4,
		start: `cat >/load/server.js <<-'END'
			const http = require('http'), crypto = require('crypto');
			let ticks = 0;
			setInterval(() => ticks++, 5);
			const server = http.createServer((q, r) => {
				if (q.url == '/ticks') return r.end(String(ticks));
				crypto.pbkdf2('a', 'b', 10, 32, 'sha256', (e, key) => r.end(key.toString('hex')));
			});
			server.keepAliveTimeout = 120000;
			server.maxRequestsPerSocket = 0;
			server.listen(8085, '127.0.0.1');
			END
			node /load/server.js & listening 8085; load 4 http 127.0.0.1:8085/key; wait`,
		verify: `one=$(busybox wget -qO- http://127.0.0.1:8085/ticks); sleep 0.3; [ "$(busybox wget -qO- http://127.0.0.1:8085/ticks)" -gt "$one" ]`,
	},
	{
		name: "gunicorn", clients: 2,
		start: `printf 'def app(environ, start):\n    start("200 OK", [("Content-Length", "5")])\n    return [b"whole"]\n' >/load/application.py
			cd /load && gunicorn --workers 3 --threads 4 --keep-alive 120 --bind 127.0.0.1:8086 application:app & listening 8086; load 2 http 127.0.0.1:8086/x; wait`,
		verify: `[ "$(busybox wget -qO- http://127.0.0.1:8086/y)" = whole ]`,
	},
	{
		name: "multiprocessing", clients: 3,
		start:  python + ` /files/processes.py & wait`,
		verify: `! grep -q . /load/*.error 2>/dev/null`,
	},
	{
		name: "postgresql", clients: 1,
		start: `bin=/usr/lib/postgresql/15/bin; install -d -o postgres /load/data /load/run
			as postgres $bin/initdb --data-checksums -D /load/data >/load/initdb.log
			echo "fsync = off
			unix_socket_directories = '/load/run'
			shared_buffers = 32MB" >>/load/data/postgresql.conf
			as postgres $bin/postgres -D /load/data >/load/server.log 2>&1 &
			until as postgres $bin/pg_isready -q -h /load/run; do sleep 0.1; done
			as postgres $bin/pgbench -q -i -s 2 -h /load/run postgres 2>/load/init.log
			as postgres $bin/psql -h /load/run -c 'create extension amcheck' postgres
			(as postgres $bin/pgbench -c 4 -T 1000000 -h 127.0.0.1 postgres >/load/bench.log 2>&1; cp /load/bench.log /load/pgbench.error) &
			last=0; while :; do now=$(as postgres $bin/psql -h /load/run -Atc 'select count(*) from pgbench_history' postgres) && [ "$now" -gt "$last" ] && last=$now && echo "$now" >/load/new && mv /load/new /load/pgbench.count; sleep 0.1; done & wait`,
		verify: `bin=/usr/lib/postgresql/15/bin; sums=$(as postgres $bin/psql -h /load/run -Atc 'begin isolation level repeatable read; select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) and (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches) and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history); commit' postgres)
			echo "$sums"; echo "$sums" | grep -qx t && as postgres $bin/pg_amcheck -h /load/run postgres && ! grep -E 'PANIC|checksum|invalid page|could not' /load/server.log`,
	},
	{
		name: "mariadb", clients: 1,
		start: `install -d -o mysql /load/data; mariadb-install-db --user=mysql --datadir=/load/data --auth-root-authentication-method=normal >/load/install.log 2>&1
			mariadbd --no-defaults --user=mysql --datadir=/load/data --socket=/load/db.sock --bind-address=127.0.0.1 --innodb-buffer-pool-size=32M --innodb-use-native-aio=0 >/load/server.log 2>&1 &
			until mariadb -S /load/db.sock -e 'select 1' >/dev/null 2>&1; do sleep 0.1; done
			mariadb -S /load/db.sock -e 'create database d; create table d.t (id int auto_increment primary key, a int, b int, key(b)) engine=innodb'
			(i=0; while :; do i=$((i+1)); echo "begin; insert into d.t (a, b) values ($i, -$i); commit; select count(*) from d.t;"; sleep 0.002; done |
				mariadb --unbuffered -N -S /load/db.sock 2>/load/client.log | while read n; do echo "$n" >/load/new; mv /load/new /load/mariadb.count; done; cp /load/client.log /load/mariadb.error) & wait`,
		verify: `[ "$(mariadb -N -S /load/db.sock -e 'select sum(a + b) = 0 and count(*) = max(id) from d.t')" = 1 ] && mariadb -N -S /load/db.sock -e 'check table d.t extended' | grep -q 'status.OK'`,
	},
	{
		name: "sqlite", clients: 1,
		start:  python + ` /files/sqlite.py & wait`,
		verify: `[ "$(sqlite3 -cmd '.timeout 10000' /load/data.db 'pragma integrity_check')" = ok ] && [ "$(sqlite3 -cmd '.timeout 10000' /load/data.db 'select count(*) = max(id) and sum(a + b) = 0 from t')" = 1 ]`,
	},
	{
		name: "java", clients: 1,
		start:  `java -Xmx128m -XX:+UseG1GC -cp /files Threads & wait`,
		verify: `! ls /load/*.error 2>/dev/null`,
	},
	{
		name: "erlang", clients: 1,
		start: `erl -noinput +S 2 +A 4 -eval '
			Worker = fun F(N) -> receive {ask, P} -> P ! {self(), N}, F(N + 1) end end,
			Ps = [spawn(fun() -> Worker(0) end) || _ <- lists:seq(1, 500)],
			Round = fun R(N) -> [P ! {ask, self()} || P <- Ps], [receive {P, N} -> ok after 60000 -> file:write_file("/load/erlang.error", "lost\n"), halt(1) end || P <- Ps],
				file:write_file("/load/new", integer_to_list(N + 1) ++ "\n"), file:rename("/load/new", "/load/erlang.count"), timer:sleep(5), R(N + 1) end,
			Round(0).' & wait`,
		verify: `! ls /load/*.error 2>/dev/null`,
	},
	{
		name: "sshd", clients: 1,
		start: `mkdir -p /run/sshd /root/.ssh; chmod 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /load/host; ssh-keygen -q -t ed25519 -N '' -f /load/key; cp /load/key.pub /root/.ssh/authorized_keys; chmod 600 /root/.ssh/authorized_keys
			/usr/sbin/sshd -D -e -p 2222 -h /load/host -o UsePAM=no -o StrictModes=no -o PidFile=/run/sshd-test.pid -o ListenAddress=127.0.0.1 2>/load/sshd.log & listening 2222
			(i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done | ssh -p 2222 -i /load/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1 cat 2>/load/client.log | while read n; do echo "$n" >/load/new; mv /load/new /load/ssh.count; done; cp /load/client.log /load/ssh.error) & wait`,
		verify: `ssh -p 2222 -i /load/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1 true`,
	},
	{
		// Before it knows its client, sshd talks to it from under a seccomp filter that
		// kills for most system calls.
		name: "sshd-sandbox", clients: 1,
		start: `mkdir -p /run/sshd /root/.ssh; chmod 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /load/host; ssh-keygen -q -t ed25519 -N '' -f /load/key; cp /load/key.pub /root/.ssh/authorized_keys; chmod 600 /root/.ssh/authorized_keys
			/usr/sbin/sshd -D -e -p 2222 -h /load/host -o UsePAM=no -o StrictModes=no -o PidFile=/run/sshd-test.pid -o ListenAddress=127.0.0.1 -o LoginGraceTime=0 2>/load/sshd.log & listening 2222
			ssh -p 2222 -i /load/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ProxyCommand='python3 /files/gate.py %p' root@127.0.0.1 echo in >/load/greeted 2>/load/client.log &
			until grep -l '^Seccomp_filters:.1' /proc/[0-9]*/status; do sleep 0.05; done
			i=0; while grep -q '^Seccomp_filters:.1' /proc/[0-9]*/status; do i=$((i+1)); echo $i >/load/new; mv /load/new /load/sandbox.count; sleep 0.05; done; wait`,
		verify: `touch /load/go; for i in $(seq 100); do grep -q in /load/greeted && exit 0; sleep 0.1; done; cat /load/client.log /load/sshd.log; exit 1`,
	},
	{
		name: "tini", clients: 1,
		start:  `exec tini -s -- bash -c '(while :; do (sleep 0.01 & exec sleep 0.02) & sleep 0.01; done) & i=0; while :; do i=$((i+1)); echo $i >/load/new; mv /load/new /load/tini.count; sleep 0.01; done'`,
		verify: `sleep 0.2; [ "$(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)" -lt 50 ]`,
	},
}
