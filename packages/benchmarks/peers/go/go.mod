module effect-orchestra/benchmarks/peers/go

go 1.23.0

require (
	github.com/thejerf/suture/v4 v4.0.6
	golang.org/x/sync v0.16.0
)
