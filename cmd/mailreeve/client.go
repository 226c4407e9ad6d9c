package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os/user"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"
)

// maxAnswer bounds an answer of the admin API that is read at once, in bytes.
// A million bans take about 200 MB of JSON.
const maxAnswer = 512 << 20

// A client speaks to the running program's admin API.
type client struct {
	socket string
	http   *http.Client
}

func newClient(socket string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &client{socket, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// admin gives a client for the program that the invocation means.
func (in *invocation) admin() (*client, error) {
	if in.socket != "" {
		return newClient(in.socket), nil
	}
	socket, err := socketOf(in.config)
	if err != nil {
		return nil, err
	}
	return newClient(socket), nil
}

// socketOf reads no more of the configuration than where the socket is, so
// that a fault elsewhere in the file, or a newer file, does not keep an
// operator from a program that runs.
func socketOf(config string) (string, error) {
	text, err := readConfigFile(config)
	if errors.Is(err, fs.ErrPermission) || (err != nil && config == defaultConfigFile) {
		return defaultSocket, nil
	}
	if err != nil {
		return "", &exitError{exitConfig, err}
	}
	var c struct {
		Admin struct {
			Socket string `toml:"socket"`
		} `toml:"admin"`
	}
	if _, err := toml.Decode(text, &c); err != nil {
		return "", &exitError{exitConfig, fmt.Errorf("%w; with --socket PATH the file is not needed", decodeError(config, text, err))}
	}
	if c.Admin.Socket == "" {
		return defaultSocket, nil
	}
	return c.Admin.Socket, nil
}

// call asks the API and gives its answer, which is JSON.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	resp, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.socket, err)
	}
	return answer, nil
}

// request asks the API. On success the caller closes the answer's body.
func (c *client) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "mailreeve", Path: path, RawQuery: query.Encode()}
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), payload)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal is the API's own error, which is a sentence for the operator.
func refusal(resp *http.Response) error {
	var answer apiError
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err := json.Unmarshal(text, &answer); err != nil || answer.Error == "" {
		return fmt.Errorf("the admin API answered %s", resp.Status)
	}
	if resp.StatusCode == http.StatusBadRequest {
		return &exitError{exitUsage, errors.New(answer.Error)}
	}
	if answer.Config {
		return &exitError{exitConfig, errors.New(answer.Error)}
	}
	return errors.New(answer.Error)
}

// unreachable says what to do about a socket that does not answer.
func (c *client) unreachable(err error) error {
	hint := err.Error()
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrNotExist):
		hint = "there is no such socket: is mailreeve running? (systemctl status mailreeve; " +
			"another configuration or socket is named with --config or --socket)"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "nobody listens there: mailreeve has ended without removing it; start it again"
	case errors.Is(err, fs.ErrPermission):
		hint = "permission denied: the socket is for root and mailreeve's group" + whoAmI()
	}
	return &exitError{exitUnreachable, fmt.Errorf("%s: %s", c.socket, hint)}
}

func whoAmI() string {
	u, err := user.Current()
	if err != nil || strings.ContainsAny(u.Username, " \n") {
		return "; use sudo"
	}
	return fmt.Sprintf("; use sudo, or add yourself to it: usermod -aG mailreeve %s", u.Username)
}
