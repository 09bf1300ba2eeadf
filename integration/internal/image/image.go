// SPDX-License-Identifier: Apache-2.0

// Package image builds OCI images for tests out of programs that Debian
// packages have installed on this machine, so that no registry is needed.
package image

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a recipe. Every image holds a static busybox with all its applets,
// /etc/passwd and a few empty directories beside what the recipe adds.
type Image struct {
	Name     string   // reference under which containerd knows it
	Command  []string // what runs where no command is given
	Programs []string // absolute paths or names to look up in PATH
	Trees    []string // directories copied whole
	Files    map[string]string
	Extra    map[string]string // path in the image -> executable on this machine
}

const registry = "mig.test/"

// Recipes of what tests run.
var (
	Busybox   = Image{Name: registry + "busybox:1", Command: []string{"sh"}}
	Memcached = Image{Name: registry + "memcached:1", Command: []string{"memcached", "-u", "nobody"}, Programs: []string{"memcached"}}
	Python    = Image{Name: registry + "python:1", Command: []string{"python3"}, Programs: []string{"/usr/bin/python3"}, Trees: []string{"/usr/lib/python3.11"}}
	Redis     = Image{
		Name:     registry + "redis:1",
		Command:  []string{"redis-server", "/etc/redis.conf"},
		Programs: []string{"redis-server", "redis-cli"},
		Files: map[string]string{"/etc/redis.conf": `bind 127.0.0.1
port 6379
unixsocket /run/redis.sock
daemonize no
save ""
appendonly no
enable-debug-command yes
dir /tmp
`},
	}
)

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
user:x:1000:1000:user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
`

const group = `root:x:0:
daemon:x:1:
extra:x:44:user
user:x:1000:
nogroup:x:65534:
`

// Write builds the image as an OCI archive, a file in dir, and returns its
// path.
func (i Image) Write(dir string) (string, error) {
	path, err := i.write(dir)
	if err != nil {
		return "", fmt.Errorf("build image %s: %w", i.Name, err)
	}
	return path, nil
}

func (i Image) write(dir string) (string, error) {
	root, err := i.layer()
	if err != nil {
		return "", err
	}
	name := strings.NewReplacer("/", "_", ":", "_").Replace(i.Name)
	file, err := os.Create(filepath.Join(dir, name+".tar"))
	if err != nil {
		return "", err
	}
	defer file.Close()
	config := v1.ImageConfig{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd: i.Command,
	}
	buffered := bufio.NewWriter(file)
	if err := writeArchive(buffered, i.Name, config, root); err != nil {
		return "", err
	}
	if err := buffered.Flush(); err != nil {
		return "", err
	}
	return file.Name(), file.Close()
}

// layer builds the root file system. What a recipe names comes first: its
// real programs win over busybox's applets.
func (i Image) layer() ([]byte, error) {
	l := newLayer()
	for _, name := range i.Programs {
		program, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("%w (run hack/deps.sh)", err)
		}
		if err := l.program(program); err != nil {
			return nil, err
		}
	}
	for _, dir := range i.Trees {
		if err := l.tree(dir, sourceOnly); err != nil {
			return nil, err
		}
	}
	for name, content := range i.Files {
		if err := l.file(name, 0o644, []byte(content)); err != nil {
			return nil, err
		}
	}
	for name, source := range i.Extra {
		content, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		if err := l.file(name, 0o755, content); err != nil {
			return nil, err
		}
	}
	if err := base(l); err != nil {
		return nil, err
	}
	return l.bytes()
}

// sourceOnly leaves out of a tree what no test needs: caches, test suites,
// headers, packages beside the standard library.
func sourceOnly(name string) bool {
	for _, part := range []string{"/__pycache__/", "/test/", "/tests/", "/config-3", "/dist-packages/", "/site-packages/", "/idlelib/", "/tkinter/"} {
		if strings.Contains(name, part) {
			return false
		}
	}
	return true
}

// base adds busybox and the skeleton of a root file system.
func base(l *layer) error {
	for name, content := range map[string]string{"/etc/passwd": passwd, "/etc/group": group, "/etc/hostname": "image\n"} {
		if err := l.file(name, 0o644, []byte(content)); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]int64{
		"/tmp": 0o1777, "/root": 0o700, "/home/user": 0o755, "/proc": 0o555, "/sys": 0o555,
		"/dev": 0o755, "/run": 0o755, "/var/lib": 0o755, "/mnt": 0o755,
	} {
		if err := l.directory(dir, mode); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w (run hack/deps.sh)", err)
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := l.file("/bin/busybox", 0o755, content); err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", busybox, err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if err := l.symlink("/bin/"+applet, "busybox"); err != nil {
			return err
		}
	}
	return nil
}
