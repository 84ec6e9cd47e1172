-- Count a failure that is about the app or the Page: Meta may show it no people any more.
-- KEYS: the usage, the cause, the row of people with such a failure, the row of people
-- that Meta does not show, the mark of a success, the verdict, the witnesses, the other
-- causes.
-- ARGV: our probe, the usage and for how long it is kept, how long the gate is closed,
-- how long failures are remembered, the API key, a person ('' if it is in the other row
-- already), people that raise the question, or how many within how many ms without any
-- success, how long a row is kept, how often witnesses are asked at most in ms, how many
-- calls may go out in that time while the witnesses are shown.
-- Returns 1 if this closes the gate, for how long it is closed, failures in a row, the
-- witnesses to ask now, how many witnesses there are.

-- How long the gate is closed at first in ms, doubling, if Meta has shown no person yet:
-- the ids may be another Page's, and one caller's real person ends it.
local SOON = 5000

note_usage(KEYS[1], ARGV[2], ARGV[3])
for i = 8, #KEYS do end_probe(KEYS[i], ARGV[1]) end
local key, refused, verdict = KEYS[2], KEYS[3], KEYS[6]
local threshold, kept_for = tonumber(ARGV[8]), ARGV[11]
if ARGV[7] ~= '' then
  redis.call('ZADD', refused, now, ARGV[7])
  redis.call('ZREMRANGEBYRANK', refused, 0, -threshold - 1)
  redis.call('PEXPIRE', refused, kept_for)
  local lately = redis.call('ZCOUNT', refused, now - ARGV[10], '+inf')
  if redis.call('ZCARD', refused) >= threshold
      or (lately >= tonumber(ARGV[9]) and redis.call('EXISTS', KEYS[5]) == 0) then
    redis.call('HSET', verdict, 'is_refused', 1)
    redis.call('PEXPIRE', verdict, kept_for)
  end
end

local failures = redis.call('HINCRBY', key, 'failures', 1)
local function close_for(first, longest)
  return close(key, ARGV[1], ARGV[6], 0, first, longest, ARGV[5])
end
local closes, left, to_ask, may_look = 0, nil, {}, nil
if is_raised(verdict, KEYS[4], threshold) then
  may_look, to_ask = consult(verdict, KEYS[7], ARGV[12], kept_for)
end
if may_look == '0'
    or (ARGV[1] ~= '' and redis.call('HGET', key, 'probe') == ARGV[1]) then
  local is_about_ids = ARGV[7] == '' and redis.call('ZCARD', KEYS[7]) == 0
  closes, left = close_for(is_about_ids and SOON or ARGV[4], ARGV[4])
elseif may_look then
  local window = redis.call('HMGET', verdict, 'window_until', 'window_calls')
  local window_until, calls = tonumber(window[1] or '') or 0, tonumber(window[2] or '') or 0
  if window_until <= now then window_until, calls = now + ARGV[12], 0 end
  calls = calls + 1
  redis.call('HSET', verdict, 'window_until', window_until, 'window_calls', calls)
  if calls >= tonumber(ARGV[13]) then
    closes, left = close_for(window_until - now, window_until - now)
    -- Nothing needs a probe then, because the witnesses are shown.
    redis.call('PEXPIRE', key, left)
  end
end
if not left then
  left = math.max((tonumber(redis.call('HGET', key, 'until') or '') or 0) - now, 0)
  redis.call('PEXPIRE', key, left + tonumber(ARGV[5]))
end
return {closes, left, failures, to_ask, redis.call('ZCARD', KEYS[7])}
