-- Delete an entry that is not a profile, with lease and note, and set the marker.
-- Return 1 if a process may still have a local copy of what was there.
-- KEYS: entry, lease, note, marker. ARGV: the marker's TTL, for how long a local copy
-- is trusted, that and a lease's time, and for how long no second note is deleted, all
-- in ms; LUA_PROFILE and LUA_LIFE of the codec.
-- The marker's value is when a note was deleted, by Redis's clock.
-- The age of a profile is the part of its life that is over, which is by the clock of
-- the process that wrote it and by the pace of Redis, so that no two clocks are
-- compared. A bound that is not a number is not an error: other people are in this trip.
local entry = redis.call('MGET', KEYS[1])[1]
local stays = entry and string.find(entry, ARGV[5])
local is_again = redis.call('PTTL', KEYS[4]) > ARGV[1] - ARGV[2]
local is_young = false
if stays then
  local from, till = string.match(entry, ARGV[6])
  from, till = tonumber(from), tonumber(till)
  local left = redis.call('PTTL', KEYS[1])
  is_young = not (from and till) or (till - from) * 1000 - left < tonumber(ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
redis.call('DEL', KEYS[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deleted_at = tonumber(redis.call('MGET', KEYS[4])[1] or '')
local is_recent = deleted_at and now >= deleted_at and now - deleted_at < ARGV[4] + 0
if not is_recent and redis.call('DEL', KEYS[3]) == 1 then deleted_at = now end
redis.call('SET', KEYS[4], deleted_at or '', 'PX', ARGV[1])
return (is_again or is_young or not stays) and 1 or 0
