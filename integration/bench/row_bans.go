package main

import "context"

func bansRow(ctx context.Context, b *bench, r *row) error { return nil }
