module effect-orchestra/benchmarks/peers/go

go 1.23.0

require golang.org/x/sync v0.16.0
