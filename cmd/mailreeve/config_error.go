package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"

	"mailreeve/guard"
	"mailreeve/proxy"
)

// A FileError is a fault in the configuration file and where it is.
type FileError struct {
	File string
	Line int
	// Key is the setting with its table: "listener.upstream". "" where the
	// text is not TOML.
	Key string
	Msg string
}

func (e *FileError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s: %s", e.File, e.Line, e.Key, e.Msg)
}

// unknownKeys makes one error of all keys that mean nothing to us.
func unknownKeys(file string, where *locator, keys []toml.Key) error {
	var faults []error
	told := map[string]bool{}
	for _, key := range keys {
		path := strings.Join(key, ".")
		if told[path] || toldAbove(told, path) {
			continue
		}
		told[path] = true
		faults = append(faults, &FileError{file, where.first(path), path, unknownKey(path)})
	}
	return errors.Join(faults...)
}

// toldAbove tells whether a table around the path has been complained about.
func toldAbove(told map[string]bool, path string) bool {
	for path = parentPath(path); path != ""; path = parentPath(path) {
		if told[path] {
			return true
		}
	}
	return false
}

// typeError takes apart the TOML package's errors about a value of a wrong
// type, which it gives as text only. TestBadConfigs holds it to that.
func typeError(err error) (key, msg string, ok bool) {
	text := regexp.MustCompile(`^toml: (?:line \d+ )?\(last key "([^"]*)"\): (.*)$`)
	m := text.FindStringSubmatch(err.Error())
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// decodeError tells where a decoding error is. The TOML package gives all
// elements of an array of tables the position of the last; so each is tried
// alone, the others blanked out, until one shows the fault.
func decodeError(file, text string, err error) error {
	fault := describeDecodeError(file, text, err)
	if fault.Key == "" {
		return fault
	}
	where := locate(text)
	for table := parentPath(fault.Key); table != ""; table = parentPath(table) {
		for i := range where.elements(table) {
			alone := only(text, where, table, i)
			c := defaultConfig()
			if _, err := toml.Decode(alone, &c); err != nil {
				if f := describeDecodeError(file, alone, err); f.Key == fault.Key {
					return f
				}
			}
		}
	}
	return fault
}

func describeDecodeError(file, text string, err error) *FileError {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		f := &FileError{File: file, Line: max(1, parse.Position.Line), Msg: parse.Message}
		// In a syntax error the last key may be one that was fine.
		if locate(text).has(parse.LastKey, f.Line) {
			f.Key = parse.LastKey
		}
		return f
	}
	if key, msg, ok := typeError(err); ok {
		return &FileError{File: file, Line: locate(text).first(key), Key: key, Msg: msg}
	}
	return &FileError{File: file, Line: 1, Msg: err.Error()}
}

// only blanks all elements of an array of tables but one, keeping the lines.
func only(text string, where *locator, table string, keep int) string {
	lines := strings.SplitAfter(text, "\n")
	blank := false
	next := 0
	for n := range lines {
		for next < len(where.places) && where.places[next].line <= n+1 {
			if p := where.places[next]; p.header {
				inside := p.path == table || strings.HasPrefix(p.path, table+".")
				blank = inside && p.index != keep
			}
			next++
		}
		if blank {
			lines[n] = "\n"
		}
	}
	return strings.Join(lines, "")
}

// placeError gives the errors of a check their lines in the file.
func placeError(file string, where *locator, err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var placed []error
		for _, one := range many.Unwrap() {
			placed = append(placed, placeError(file, where, one))
		}
		return errors.Join(placed...)
	}
	fault := FileError{File: file, Line: 1, Msg: err.Error()}
	var at proxy.Element
	var inProxy *proxy.ConfigError
	var inGuard *guard.KeyError
	switch {
	case errors.As(err, &inProxy):
		at, fault.Msg = inProxy.Element, inProxy.Msg
	case errors.As(err, &inGuard):
		at, fault.Msg = guardElement(inGuard.Key), inGuard.Err.Error()
	default:
		return &fault
	}
	fault.Line = where.line(at.Table, at.Index, at.Key)
	fault.Key = joinPath(at.Table, at.Key)
	return &fault
}

// inFile gives an error that shows only once the settings are used, such as a
// certificate that is not there or a port that is taken, its line in the file.
// Other errors stay as they are.
func inFile(file string, err error) error {
	var inProxy *proxy.ConfigError
	var inGuard *guard.KeyError
	if !errors.As(err, &inProxy) && !errors.As(err, &inGuard) {
		return err
	}
	text, unread := readConfigFile(file)
	if unread != nil {
		return err
	}
	return &exitError{exitConfig, placeError(file, locate(text), err)}
}

// guardElement takes apart the keys of the guard's errors: "ban-time" is in
// [guard], "rule[2].limit" in the third [[guard.rule]].
func guardElement(key string) proxy.Element {
	var index int
	var rest string
	if n, _ := fmt.Sscanf(key, "rule[%d].%s", &index, &rest); n == 2 {
		return proxy.Element{Table: "guard.rule", Index: index, Key: rest}
	}
	return proxy.Element{Table: "guard", Key: key}
}
