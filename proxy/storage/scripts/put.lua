-- Store the entry and end the flight, if the lease is still the caller's.
-- KEYS: entry, lease, note, marker. ARGV: lease, entry, its TTL in ms, and '1' to
-- store it only over an entry that is still there.
-- MGET where GET would do: it answers nil, not an error, for a key of another type.
if redis.call('MGET', KEYS[2])[1] ~= ARGV[1] then return 0 end
local kept
if ARGV[4] == '1' then
  kept = redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3], 'XX')
else
  kept = redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[2], KEYS[3])
return kept and 1 or 0
