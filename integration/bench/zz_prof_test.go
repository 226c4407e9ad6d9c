package main
import ("testing";"context";"time";"os")
func TestFill(t *testing.T){ if os.Getenv("PROF")=="" {t.Skip()}
 b:=time.Now(); if err:=storeBans(context.Background(), "/tmp/benchsnap/bans",0,200000); err!=nil {t.Fatal(err)}; t.Log("fill",time.Since(b)) }
func TestOpen(t *testing.T){ if os.Getenv("PROF")=="" {t.Skip()}
 b:=time.Now(); g,err:=openGuard("/tmp/benchsnap/bans"); if err!=nil {t.Fatal(err)}; t.Log("open",time.Since(b), g.Status().Bans);
 b=time.Now(); g.Close(); t.Log("close",time.Since(b))}
func TestAdmit(t *testing.T){ if os.Getenv("PROF")=="" {t.Skip()}
 g,err:=openGuard("/tmp/benchsnap/bans"); if err!=nil {t.Fatal(err)}; 
 for i:=0;i<3;i++ {t.Log("admit",admitTime(g,200000))}}
