-- KEYS: the refreshes. ARGV: a counter's name, for how long all of them are kept.

redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
