-- Delete the lease, if it is still the caller's (see put.lua).
-- KEYS: entry, lease, note, marker. ARGV: lease, and perhaps an entry and its TTL in ms,
-- to store over an entry that is still there.
if redis.call('MGET', KEYS[2])[1] ~= ARGV[1] then return 0 end
if ARGV[2] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3], 'XX') end
return redis.call('DEL', KEYS[2])
