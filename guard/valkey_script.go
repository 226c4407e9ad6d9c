package guard

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"

	"github.com/valkey-io/valkey-go"
)

//go:embed valkey_ledger.lua
var ledgerScript string

//go:embed valkey_records.lua
var recordsScript string

// A script is Lua that the server runs as one step. It is known by its hash,
// so that two versions of this program can share a store while a fleet is
// being updated; a server that does not know it is sent it.
type script struct{ text, hash string }

func newScript(text string) script {
	sum := sha1.Sum([]byte(text)) // the server's name for it, not a secret
	return script{text, hex.EncodeToString(sum[:])}
}

// run runs the script for an answer that is a list.
func (s *script) run(ctx context.Context, c valkey.Client, keys, args []string) ([]valkey.ValkeyMessage, error) {
	r := s.do(ctx, c, keys, args)
	list, err := r.ToArray()
	if err != nil && r.Error() == nil {
		return nil, errReply
	}
	return list, err
}

func (s *script) do(ctx context.Context, c valkey.Client, keys, args []string) valkey.ValkeyResult {
	r := c.Do(ctx, c.B().Evalsha().Sha1(s.hash).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())
	if e, ok := valkey.IsValkeyErr(r.Error()); ok && e.IsNoScript() {
		r = c.Do(ctx, c.B().Eval().Script(s.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())
	}
	return r
}

// number runs the script for an answer that is a number.
func (s *script) number(ctx context.Context, c valkey.Client, keys, args []string) (int64, error) {
	r := s.do(ctx, c, keys, args)
	n, err := r.AsInt64()
	if err != nil && r.Error() == nil {
		return 0, errReply
	}
	return n, err
}

// errReply is what an answer is that no script of ours gives.
var errReply = errors.New("an answer in no known form")
