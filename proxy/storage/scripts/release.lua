-- Delete the lease, if it is still the caller's (see put.lua).
-- KEYS: entry, lease, note, marker. ARGV: lease.
if redis.call('MGET', KEYS[2])[1] ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[2])
