-- KEYS: causes. ARGV: our probe.

for _, key in ipairs(KEYS) do end_probe(key, ARGV[1]) end
