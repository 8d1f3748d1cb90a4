-- Postgres's container runs this when it has made the database. The owner migrates; the others have the rights that
-- `mds grants` prints. None is a superuser.
\getenv db_admin_password DB_ADMIN_PASSWORD
\getenv worker_password WORKER_PASSWORD
\getenv web_password WEB_PASSWORD
\getenv monitor_password MONITOR_PASSWORD
CREATE ROLE mds_admin LOGIN PASSWORD :'db_admin_password';
CREATE ROLE mds_worker LOGIN PASSWORD :'worker_password';
CREATE ROLE mds_web LOGIN PASSWORD :'web_password';
CREATE ROLE mds_monitor LOGIN PASSWORD :'monitor_password';
-- For people and their programs: ALTER ROLE mds_operator LOGIN PASSWORD '...'.
CREATE ROLE mds_operator;
CREATE ROLE mds_reader;
ALTER DATABASE market_data OWNER TO mds_admin;
