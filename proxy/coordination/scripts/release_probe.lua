-- KEYS: the usage, causes. ARGV: our probe, the usage and for how long it is kept.

note_usage(KEYS[1], ARGV[2], ARGV[3])
for i = 2, #KEYS do end_probe(KEYS[i], ARGV[1]) end
