package guard

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/protocol"
)

// What an attack filled is given back when it is forgotten.
func TestTablesGiveTheirMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.ExemptLocal = false
		g := open(t, cfg, Options{Store: StoreConfig{Kind: "memory"}})
		defer g.Close()
		attack := func() {
			for i := range 20_000 {
				o := from(fmt.Sprintf("10.%d.%d.1", i/200, i%200))
				if a, _ := g.Attempt(t.Context(), o, plain(fmt.Sprint("victim", i), fmt.Sprint("guess", i))); a != nil {
					g.Settle(a, protocol.Failure, "")
				}
			}
		}
		before := heapInUse()
		attack()
		held := heapInUse()
		time.Sleep(2 * janitorEvery) // it sees how much there is
		if _, err := g.Unban(UnbanRequest{Target: "all"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		after := heapInUse()
		t.Logf("%d KiB before, %d under attack, %d after", before>>10, held>>10, after>>10)
		if after > before+(held-before)/20 {
			t.Errorf("%d KiB are in use when all is forgotten, %d before the attack, %d in it", after>>10, before>>10, held>>10)
		}
		if v := g.Status(); v.Addresses != 0 {
			t.Errorf("%+v is left", v)
		}
	})
}

// What is made anew holds what it held.
func TestSlimKeepsWhatIsThere(t *testing.T) {
	m, most := map[int]int{}, 0
	for i := range 4 * slimFrom {
		m[i] = -i
	}
	m = slim(m, &most)
	for i := slimFrom - 1; i < 4*slimFrom; i++ {
		delete(m, i)
	}
	m = slim(m, &most)
	if len(m) != slimFrom-1 || most != slimFrom-1 {
		t.Fatalf("%d entries, at the most %d, want %d of both", len(m), most, slimFrom-1)
	}
	for k, v := range m {
		if v != -k {
			t.Errorf("%d became %d", -k, v)
		}
	}
}
