-- Statements that look for rows only in some partitions must notice what lies in others.

-- Undoes a statement that did not find all that it had taken: nothing of it stays, and the broker looks further.
CREATE FUNCTION noetl.refuse_partial(missing bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF missing <> 0 THEN
    RAISE EXCEPTION '% rows lie further back', missing USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN true;
END $$;
