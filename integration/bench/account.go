package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree lists a process and its descendants. Servers that fork are measured as
// one.
func tree(root int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // It has ended.
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		// The name in brackets may hold blanks; the parent is the second
		// field behind it.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		parent, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		children[parent] = append(children[parent], pid)
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// cpuTime is the CPU time that the processes have used, with all threads,
// living and dead. It is the kernel's own sum in nanoseconds, where
// /proc/PID/stat would round to 10 ms.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		// How clock_getcpuclockid(3) makes a process's clock of its number;
		// 2 is CPUCLOCK_SCHED.
		clock := int32(^pid<<3 | 2)
		var t unix.Timespec
		if err := unix.ClockGettime(clock, &t); err != nil {
			return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// memory is what processes occupy, in KiB.
type memory struct {
	RSS float64 // with shared pages counted in each process
	PSS float64 // with shared pages divided among those that share
}

func memoryOf(pids []int) (memory, error) {
	var m memory
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 3 {
				continue
			}
			kib, _ := strconv.ParseFloat(fields[1], 64)
			switch fields[0] {
			case "Rss:":
				m.RSS += kib
			case "Pss:":
				m.PSS += kib
			}
		}
	}
	return m, nil
}

// machineTime is the whole machine's time, and how much of it the hypervisor
// gave to others.
type machineTime struct{ total, steal float64 }

func machineNow() (machineTime, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return machineTime{}, err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return machineTime{}, err
	}
	var m machineTime
	for i, field := range strings.Fields(line)[1:] {
		v, _ := strconv.ParseFloat(field, 64)
		if i < 8 { // The guests' time behind is part of user's.
			m.total += v
		}
		if i == 7 {
			m.steal = v
		}
	}
	return m, nil
}

// stealSince is the share that was stolen, in per cent.
func (m machineTime) stealSince(before machineTime) float64 {
	if m.total <= before.total {
		return 0
	}
	return 100 * (m.steal - before.steal) / (m.total - before.total)
}
