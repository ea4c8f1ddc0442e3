-- Deliveries in a row that came back are counted on through a decision: from the third on, each one is decided, whatever it waited for.
ALTER TABLE noetl.delayed ADD COLUMN returns smallint NOT NULL DEFAULT 0;
