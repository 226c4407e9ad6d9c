package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// completionVerb prints a completion script. The words come from the verb
// table, so a new verb or flag is completed without further work.
func completionVerb(*flag.FlagSet) action {
	return func(_ context.Context, in *invocation, args []string) error {
		if len(args) != 1 {
			return usageError("name a shell: bash, zsh or fish")
		}
		shells := map[string]func() string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
		script, known := shells[args[0]]
		if !known {
			return usageError("%q is none of bash, zsh, fish", args[0])
		}
		_, err := fmt.Fprint(in.stdout, script())
		return err
	}
}

// verbFlags gives the flags of a verb.
func verbFlags(v verb) []*flag.Flag {
	flags := newFlags(v.name, &invocation{config: defaultConfigFile})
	v.setup(flags)
	var all []*flag.Flag
	flags.VisitAll(func(f *flag.Flag) { all = append(all, f) })
	return all
}

// words gives what may follow a verb: its flags, and its arguments where they
// are fixed words. Targets of unban and why are asked of the running program.
func words(v verb) string {
	var w []string
	for _, f := range verbFlags(v) {
		w = append(w, "--"+f.Name)
	}
	switch v.name {
	case "completion":
		w = append(w, "bash", "zsh", "fish")
	case "unban":
		w = append(w, "all")
	}
	return strings.Join(w, " ")
}

// fileVerbs are the commands whose arguments are files.
func fileVerbs() []string { return []string{"import", "replay"} }

// flagWords are the flags whose values are fixed words.
func flagWords() map[string][]string {
	return map[string][]string{
		"format": importFormats(),
		"kind":   {"ban", "guard", "refuse", "delay", "any"},
		"sort":   {"until", "since", "target", "rule"},
		"scope":  {"all", "auth", "mx"},
	}
}

// flagWordsBash completes the values of such flags.
func flagWordsBash() string {
	var b strings.Builder
	all := flagWords()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "--%s) COMPREPLY=($(compgen -W %q -- \"$cur\")); return;;\n\t", name, strings.Join(all[name], " "))
	}
	return b.String()
}

// bannedTargets is a shell command that lists what can be unbanned.
const bannedTargets = `mailreeve bans --kind any 2>/dev/null | awk 'NR>1 && NF>4 {print $1}'`

func bashCompletion() string {
	var b strings.Builder
	b.WriteString("# bash completion of mailreeve: source it, or put it into /etc/bash_completion.d\n")
	b.WriteString("_mailreeve() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= w\n")
	b.WriteString("\tcase $prev in --config|--socket) COMPREPLY=($(compgen -f -- \"$cur\")); return;; esac\n")
	b.WriteString("\tfor w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do case $w in -*) ;; *) verb=$w; break;; esac; done\n")
	b.WriteString("\tlocal words\n\tcase $verb in\n")
	var names []string
	for _, v := range verbs() {
		names = append(names, v.name)
		extra := ""
		if v.name == "unban" || v.name == "why" {
			extra = " $(" + bannedTargets + ")"
		}
		fmt.Fprintf(&b, "\t%s) words=\"%s%s\";;\n", v.name, words(v), extra)
	}
	fmt.Fprintf(&b, "\t*) words=\"--config --socket --json help %s\";;\n\tesac\n", strings.Join(names, " "))
	fmt.Fprintf(&b, "\tcase $prev in %s\tesac\n", flagWordsBash())
	fmt.Fprintf(&b, "\tcase $verb in %s) COMPREPLY=($(compgen -W \"$words\" -f -- \"$cur\"));;\n", strings.Join(fileVerbs(), "|"))
	b.WriteString("\t*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"));;\n\tesac\n}\ncomplete -o filenames -F _mailreeve mailreeve\n")
	return b.String()
}

func zshCompletion() string {
	var b strings.Builder
	b.WriteString("#compdef mailreeve\n# zsh completion of mailreeve: put it into a directory of $fpath as _mailreeve\n")
	b.WriteString("_mailreeve() {\n\tlocal -a commands\n\tcommands=(\n")
	for _, v := range verbs() {
		fmt.Fprintf(&b, "\t\t%s\n", shellQuote(v.name+":"+v.summary))
	}
	b.WriteString("\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tcase $words[2] in\n")
	for _, v := range verbs() {
		extra := ""
		if v.name == "unban" || v.name == "why" {
			extra = " $(" + bannedTargets + ")"
		}
		files := ""
		if slices.Contains(fileVerbs(), v.name) {
			files = "; _files"
		}
		fmt.Fprintf(&b, "\t%s) compadd -- %s%s%s;;\n", v.name, words(v), extra, files)
	}
	b.WriteString("\tesac\n}\n_mailreeve \"$@\"\n")
	return b.String()
}

func fishCompletion() string {
	var b strings.Builder
	b.WriteString("# fish completion of mailreeve: put it into ~/.config/fish/completions/mailreeve.fish\n")
	b.WriteString("complete -c mailreeve -f\n")
	for _, v := range verbs() {
		fmt.Fprintf(&b, "complete -c mailreeve -n __fish_use_subcommand -a %s -d %s\n", v.name, shellQuote(v.summary))
		for _, f := range verbFlags(v) {
			_, about := flag.UnquoteUsage(f)
			values := ""
			if fixed := flagWords()[f.Name]; fixed != nil {
				values = " -x -a " + shellQuote(strings.Join(fixed, " "))
			}
			fmt.Fprintf(&b, "complete -c mailreeve -n '__fish_seen_subcommand_from %s' -l %s%s -d %s\n", v.name, f.Name, values, shellQuote(about))
		}
	}
	b.WriteString("complete -c mailreeve -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n")
	fmt.Fprintf(&b, "complete -c mailreeve -n '__fish_seen_subcommand_from %s' -F\n", strings.Join(fileVerbs(), " "))
	fmt.Fprintf(&b, "complete -c mailreeve -n '__fish_seen_subcommand_from unban why' -a %s\n", shellQuote("("+bannedTargets+")"))
	return b.String()
}

// shellQuote quotes for all three shells.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
