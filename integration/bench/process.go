package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A process is a child that runs until it is stopped, and dies with us.
type process struct {
	cmd *exec.Cmd
	log string // the file that it writes to
	end chan error
}

// launch starts a child with its output in the file log.
func launch(log string, cmd *exec.Cmd) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Stderr = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, log: log, end: make(chan error, 1)}
	go func() { p.end <- cmd.Wait() }()
	return p, nil
}

// stop ends the process, at once if it does not end by itself.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.end:
	case <-time.After(5 * time.Second):
		// The whole group: workers must not outlive a master that hangs.
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.end
	}
}

// tail is the end of the log, for errors.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return string(text)
}

// awaitUp waits until up says nil.
func (p *process) awaitUp(up func() error) error {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := up()
		if err == nil {
			return nil
		}
		select {
		case ended := <-p.end:
			p.end <- ended
			return fmt.Errorf("%s ended: %v\n%s", p.cmd.Path, ended, p.tail())
		default:
		}
		if time.Since(begin) > patience {
			return fmt.Errorf("%s is not ready: %w\n%s", p.cmd.Path, err, p.tail())
		}
	}
}

// A helper is this program again, as a dummy server or as a crowd of idle
// clients, so that what they need is accounted for apart. It is told a line
// and answers a line.
type helper struct {
	*process
	in  io.WriteCloser
	out *bufio.Reader
}

// startHelper runs this program with args and waits for its first line.
func startHelper(log string, args ...string) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	h := &helper{}
	if h.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// Not StdoutPipe: Wait closes that, with the last answer unread.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	cmd.Stdout, h.out = write, bufio.NewReader(read)
	if h.process, err = launch(log, cmd); err != nil {
		return nil, err
	}
	if _, err := h.out.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", args[0], err), errors.New(h.tail()))
	}
	return h, nil
}

// ask sends a line and decodes the answer.
func (h *helper) ask(line string, answer any) error {
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		return err
	}
	text, err := h.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", line, err, h.tail())
	}
	return json.Unmarshal(text, answer)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
