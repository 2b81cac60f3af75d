module consul-tgw/bench/loadgen

go 1.25
