-- Report what the witnesses got.
-- KEYS: the usage, the causes, the row of people that Meta does not show, the verdict,
-- the people of the row of failures, the witnesses.
-- ARGV: our probe, the usage and for how long it is kept, the number of the cause that
-- the witnesses decide about or 0, 1 if Meta shows one of them, how many people raise
-- the question, how long the gate is closed, how long failures are remembered, how long
-- the verdict is kept, how often witnesses are asked at most in ms.
-- Returns the numbers of the causes that no longer close the gate, 1 if this closes it,
-- for how long it is closed.

note_usage(KEYS[1], ARGV[2], ARGV[3])
local last, probe, decided = #KEYS - 4, ARGV[1], tonumber(ARGV[4])
local not_shown, verdict = KEYS[last + 1], KEYS[last + 2]
local opened, closes, left = {}, 0, 0
redis.call('DEL', KEYS[last + 3])
if decided > 0 then
  redis.call('HSET', verdict, 'may_look', ARGV[5], 'ask_after', now + ARGV[10])
  redis.call('PEXPIRE', verdict, ARGV[9])
end
for i = 2, last do
  local is_ours = probe ~= '' and redis.call('HGET', KEYS[i], 'probe') == probe
  if i - 1 == decided and ARGV[5] == '0' then
    if is_ours or is_raised(verdict, not_shown, ARGV[6]) then
      closes, left = close(KEYS[i], probe, nil, 0, ARGV[7], ARGV[7], ARGV[8])
      if is_ours then
        -- All have been asked, so the next probe is a caller's own question.
        redis.call('HSET', KEYS[i], 'tried', redis.call('ZCARD', KEYS[last + 4]))
      end
    end
  elseif is_ours then
    redis.call('DEL', KEYS[i])
    opened[#opened + 1] = i - 1
  end
end
return {opened, closes, left}
