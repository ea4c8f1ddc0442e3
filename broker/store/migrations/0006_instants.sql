-- Ids are made of the millisecond that has begun, not of the nearest one: created_at was up to half a millisecond ahead of the clock.

-- The lowest id of an instant.
CREATE OR REPLACE FUNCTION noetl.id_at(instant timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT (floor(extract(epoch FROM instant) * 1000)::bigint - 1735689600000) << 22 $$;
