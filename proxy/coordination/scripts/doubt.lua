-- KEYS: the people in doubt. ARGV: a person, how many are enough, how long to keep them.
-- Returns how many there are now.

if redis.call('SCARD', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('SADD', KEYS[1], ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('SCARD', KEYS[1])
