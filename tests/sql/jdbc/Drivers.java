import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;

/**
 * PostgreSQL's driver for Java does with a database of Fluence what it does with PostgreSQL.
 *
 * <p>Use: ../others.py jdbc starts the database and judges; alone: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, and
 * `java -cp postgresql.jar Drivers.java`. Prints a line a check: `CHECK`, its name, and nothing or why it failed, between tabs.
 */
public final class Drivers {
    interface Act {
        void run() throws Exception;
    }

    interface With {
        void run(Connection db, String table) throws Exception;
    }

    static final Map<String, Act> CHECKS = new LinkedHashMap<>();
    static int tables = 0;

    static Connection connect(String... words) throws SQLException {
        Map<String, String> env = System.getenv();
        Properties properties = new Properties();
        properties.setProperty("user", env.get("PGUSER"));
        properties.setProperty("password", env.get("PGPASSWORD"));
        properties.setProperty("connectTimeout", "20");
        for (int i = 0; i < words.length; i += 2) {
            properties.setProperty(words[i], words[i + 1]);
        }
        String url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
        return DriverManager.getConnection(url, properties);
    }

    /** A connection and the name of a table of its own. */
    static Act table(String columns, With act) {
        return () -> {
            String table = "jdbc" + ++tables;
            try (Connection db = connect()) {
                run(db, "CREATE TABLE " + table + " (" + columns + ")");
                act.run(db, table);
            } finally {
                try (Connection db = connect()) {
                    run(db, "DROP TABLE IF EXISTS " + table);
                }
            }
        };
    }

    static int run(Connection db, String sql) throws SQLException {
        try (Statement statement = db.createStatement()) {
            return statement.executeUpdate(sql);
        }
    }

    /** Rows as lists of what getObject gives. */
    static List<List<Object>> rows(ResultSet set) throws SQLException {
        List<List<Object>> rows = new ArrayList<>();
        int columns = set.getMetaData().getColumnCount();
        while (set.next()) {
            List<Object> row = new ArrayList<>();
            for (int i = 1; i <= columns; i++) {
                row.add(set.getObject(i));
            }
            rows.add(row);
        }
        return rows;
    }

    static List<List<Object>> rows(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            try (ResultSet set = statement.executeQuery()) {
                return rows(set);
            }
        }
    }

    static void same(Object got, Object wanted) {
        if (!String.valueOf(got).equals(String.valueOf(wanted))) {
            throw new AssertionError(got + " instead of " + wanted);
        }
    }

    static String state(Act act) throws Exception {
        try {
            act.run();
        } catch (SQLException error) {
            return error.getSQLState();
        }
        throw new AssertionError("no error");
    }

    /** Some columns of the rows that the driver's metadata gives. */
    static List<List<Object>> columns(ResultSet set, String... names) throws SQLException {
        List<List<Object>> rows = new ArrayList<>();
        while (set.next()) {
            List<Object> row = new ArrayList<>();
            for (String name : names) {
                row.add(set.getObject(name));
            }
            rows.add(row);
        }
        return rows;
    }

    static final String TYPED = "id integer PRIMARY KEY, s smallint, b bigint, r real, f double precision, n numeric(12,3), o boolean,"
        + " t text, v varchar(9), d date, ts timestamp, z timestamptz, u uuid";

    static Object[] typed() {
        return new Object[] {1, 7, 9007199254740993L, 1.5f, -1e300, new BigDecimal("123456789.125"), true, "Ä'\\\n\"€", "neun",
            LocalDate.of(2024, 2, 29), LocalDateTime.of(2024, 2, 29, 12, 30, 1, 5000), OffsetDateTime.of(2024, 2, 29, 23, 59, 59, 999999000, ZoneOffset.UTC),
            UUID.fromString("550e8400-e29b-41d4-a716-446655440000")};
    }

    static final String INSERT_TYPED = " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

    static void write(Connection db, String t, Object... values) throws SQLException {
        try (PreparedStatement insert = db.prepareStatement("INSERT INTO " + t + INSERT_TYPED)) {
            for (int i = 0; i < values.length; i++) {
                insert.setObject(i + 1, values[i]);
            }
            same(insert.executeUpdate(), 1);
        }
    }

    static void verify(Connection db, String t) throws SQLException {
        try (Statement statement = db.createStatement(); ResultSet set = statement.executeQuery("SELECT * FROM " + t + " ORDER BY id")) {
            Object[] row = typed();
            set.next();
            List<Object> got = new ArrayList<>();
            for (int i = 1; i <= 9; i++) {
                got.add(set.getObject(i));
            }
            got.add(set.getObject(10, LocalDate.class));
            got.add(set.getObject(11, LocalDateTime.class));
            got.add(set.getObject(12, OffsetDateTime.class));
            got.add(set.getObject(13));
            same(got, Arrays.asList(row));
            same(set.getInt("id") + set.getLong("b") + set.getShort("s"), 1 + 9007199254740993L + 7);
            set.next();
            for (int i = 2; i <= 13; i++) {
                same(set.getObject(i), null);
            }
        }
    }

    static void checks() {
        CHECKS.put("the server is asked and answers", () -> {
            try (Connection db = connect()) {
                same(rows(db, "SELECT 1, 'zwei'"), "[[1, zwei]]");
                same(db.isValid(5), true);
                DatabaseMetaData data = db.getMetaData();
                same(data.getDatabaseMajorVersion(), 15);
                same(db.getCatalog(), System.getenv("PGDATABASE"));
                same(data.getUserName(), System.getenv("PGUSER"));
            }
        });
        CHECKS.put("the schema in use is public", () -> {
            try (Connection db = connect()) {
                same(db.getSchema(), "public");
            }
        });
        CHECKS.put("a wrong password is refused", () -> same(state(() -> connect("password", "wrong").close()), "28P01"));
        CHECKS.put("values of all types come back as they went", table(TYPED, (db, t) -> {
            write(db, t, typed());
            Object[] nulls = new Object[13];
            nulls[0] = 2;
            try (PreparedStatement insert = db.prepareStatement("INSERT INTO " + t + INSERT_TYPED)) {
                insert.setInt(1, 2);
                for (int i = 2; i <= 13; i++) {
                    insert.setNull(i, i == 8 || i == 9 ? Types.VARCHAR : Types.NULL);
                }
                insert.executeUpdate();
            }
            verify(db, t);
        }));
        CHECKS.put("values of all types come back in binary", table(TYPED, (db, t) -> {
            try (Connection binary = connect("prepareThreshold", "-1", "binaryTransfer", "true")) {
                write(binary, t, typed());
                run(binary, "INSERT INTO " + t + " (id) VALUES (2)");
                verify(binary, t);
            }
        }));
        CHECKS.put("bytes come back as they went", table("id integer PRIMARY KEY, y bytea", (db, t) -> {
            byte[] bytes = new byte[256];
            for (int i = 0; i < 256; i++) {
                bytes[i] = (byte) i;
            }
            try (PreparedStatement insert = db.prepareStatement("INSERT INTO " + t + " VALUES (1, ?)")) {
                insert.setBytes(1, bytes);
                insert.executeUpdate();
            }
            try (Statement statement = db.createStatement(); ResultSet set = statement.executeQuery("SELECT y FROM " + t)) {
                set.next();
                same(Arrays.toString(set.getBytes(1)), Arrays.toString(bytes));
            }
        }));
        CHECKS.put("a date and a timestamp of java sql come back", table("d date, ts timestamp, z timestamptz", (db, t) -> {
            try (PreparedStatement insert = db.prepareStatement("INSERT INTO " + t + " VALUES (?, ?, ?)")) {
                insert.setDate(1, Date.valueOf("2024-02-29"));
                insert.setTimestamp(2, Timestamp.valueOf("2024-02-29 12:30:01.000005"));
                insert.setTimestamp(3, Timestamp.valueOf("1969-12-31 23:00:00"));
                insert.executeUpdate();
            }
            same(rows(db, "SELECT * FROM " + t), "[[2024-02-29, 2024-02-29 12:30:01.000005, 1969-12-31 23:00:00.0]]");
        }));
        CHECKS.put("a parameter of each type finds its row", table(TYPED, (db, t) -> {
            write(db, t, typed());
            Object[] row = typed();
            int i = 0;
            for (String column : List.of("id", "s", "b", "r", "f", "n", "o", "t", "v", "d", "ts", "z", "u")) {
                try {
                    same(rows(db, "SELECT id FROM " + t + " WHERE " + column + " = ?", row[i++]), "[[1]]");
                } catch (SQLException error) {
                    throw new AssertionError(column + ": " + error.getMessage());
                }
            }
        }));
        CHECKS.put("a statement is prepared on the server and runs often", table("id integer PRIMARY KEY, t text", (db, t) -> {
            try (PreparedStatement put = db.prepareStatement("INSERT INTO " + t + " VALUES (?, ?)");
                PreparedStatement get = db.prepareStatement("SELECT id, t FROM " + t + " WHERE id = ?")) {
                for (int n = 0; n < 9; n++) {
                    put.setInt(1, n);
                    put.setString(2, "n" + n);
                    same(put.executeUpdate(), 1);
                }
                for (int n = 0; n < 9; n++) {
                    get.setInt(1, n);
                    try (ResultSet set = get.executeQuery()) {
                        same(rows(set), "[[" + n + ", n" + n + "]]");
                    }
                }
                same(get.unwrap(PGStatement.class).isUseServerPrepare(), true);
                same(get.getParameterMetaData().getParameterTypeName(1), "int4");
            }
        }));
        CHECKS.put("a batch is written and counted", table("id integer PRIMARY KEY, t text", (db, t) -> {
            try (PreparedStatement put = db.prepareStatement("INSERT INTO " + t + " VALUES (?, ?)")) {
                for (int n = 0; n < 30; n++) {
                    put.setInt(1, n);
                    put.setString(2, "n" + n);
                    put.addBatch();
                }
                int[] counts = put.executeBatch();
                same(counts.length + " " + Arrays.stream(counts).sum(), "30 30");
            }
            same(rows(db, "SELECT count(*), max(id) FROM " + t), "[[30, 29]]");
        }));
        CHECKS.put("a batch with an error writes nothing of its transaction", table("id integer PRIMARY KEY", (db, t) -> {
            db.setAutoCommit(false);
            try (Statement batch = db.createStatement()) {
                batch.addBatch("INSERT INTO " + t + " VALUES (1)");
                batch.addBatch("INSERT INTO " + t + " VALUES (1)");
                try {
                    batch.executeBatch();
                    throw new AssertionError("no error");
                } catch (BatchUpdateException error) {
                    same(error.getSQLState(), "23505");
                }
            }
            db.rollback();
            same(rows(db, "SELECT count(*) FROM " + t), "[[0]]");
            db.commit();
        }));
        CHECKS.put("rewritten batches insert many rows a statement", table("id integer PRIMARY KEY, t text", (db, t) -> {
            try (Connection many = connect("reWriteBatchedInserts", "true");
                PreparedStatement put = many.prepareStatement("INSERT INTO " + t + " VALUES (?, ?)")) {
                for (int n = 0; n < 30; n++) {
                    put.setInt(1, n);
                    put.setString(2, "n" + n);
                    put.addBatch();
                }
                put.executeBatch();
            }
            same(rows(db, "SELECT count(*), sum(id) FROM " + t), "[[30, 435]]");
        }));
        CHECKS.put("generated keys come back", table("id serial PRIMARY KEY, t text", (db, t) -> {
            try (PreparedStatement put = db.prepareStatement("INSERT INTO " + t + " (t) VALUES (?), (?)", new String[] {"id"})) {
                put.setString(1, "a");
                put.setString(2, "b");
                same(put.executeUpdate(), 2);
                try (ResultSet keys = put.getGeneratedKeys()) {
                    same(rows(keys), "[[1], [2]]");
                }
            }
        }));
        CHECKS.put("a transaction happens or does not", table("id integer PRIMARY KEY", (db, t) -> {
            db.setAutoCommit(false);
            run(db, "INSERT INTO " + t + " VALUES (1)");
            db.rollback();
            run(db, "INSERT INTO " + t + " VALUES (2)");
            Savepoint savepoint = db.setSavepoint("s");
            same(state(() -> run(db, "INSERT INTO " + t + " VALUES (2)")), "23505");
            same(state(() -> run(db, "INSERT INTO " + t + " VALUES (3)")), "25P02");
            db.rollback(savepoint);
            run(db, "INSERT INTO " + t + " VALUES (4)");
            db.commit();
            same(rows(db, "SELECT id FROM " + t + " ORDER BY id"), "[[2], [4]]");
            db.commit();
        }));
        CHECKS.put("the isolation is serializable", () -> {
            try (Connection db = connect()) {
                same(db.getTransactionIsolation(), Connection.TRANSACTION_SERIALIZABLE);
                db.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                same(rows(db, "SELECT 1"), "[[1]]");
            }
        });
        CHECKS.put("a read only transaction refuses to write", table("id integer PRIMARY KEY", (db, t) -> {
            db.setReadOnly(true);
            db.setAutoCommit(false);
            same(state(() -> run(db, "INSERT INTO " + t + " VALUES (1)")), "25006");
            db.rollback();
        }));
        CHECKS.put("errors have the codes of PostgreSQL", table("id integer PRIMARY KEY, n integer NOT NULL CHECK (n > 0)", (db, t) -> {
            run(db, "INSERT INTO " + t + " VALUES (1, 1)");
            Map<String, String> wanted = new TreeMap<>(Map.of(
                "INSERT INTO " + t + " VALUES (1, 1)", "23505",
                "INSERT INTO " + t + " VALUES (2, NULL)", "23502",
                "INSERT INTO " + t + " VALUES (2, 0)", "23514",
                "INSERT INTO " + t + " VALUES (3000000000, 1)", "22003",
                "SELECT * FROM nowhere", "42P01",
                "SELECT nothing FROM " + t, "42703",
                "SELEC", "42601",
                "SELECT 1 / 0", "22012",
                "SELECT 'x'::integer", "22P02"));
            for (Map.Entry<String, String> entry : wanted.entrySet()) {
                same(state(() -> db.createStatement().execute(entry.getKey())) + " of " + entry.getKey(), entry.getValue() + " of " + entry.getKey());
            }
        }));
        CHECKS.put("a violation names its table and constraint", table("id integer PRIMARY KEY", (db, t) -> {
            run(db, "INSERT INTO " + t + " VALUES (1)");
            try {
                run(db, "INSERT INTO " + t + " VALUES (1)");
                throw new AssertionError("no error");
            } catch (PSQLException error) {
                same(error.getServerErrorMessage().getTable() + " " + error.getServerErrorMessage().getConstraint(), t + " " + t + "_pkey");
            }
        }));
        CHECKS.put("a fetch size gives rows in portions", () -> {
            try (Connection db = connect()) {
                db.setAutoCommit(false);
                try (PreparedStatement statement = db.prepareStatement("SELECT i FROM generate_series(1, 95) AS s(i) ORDER BY i")) {
                    statement.setFetchSize(10);
                    try (ResultSet set = statement.executeQuery()) {
                        int sum = 0;
                        while (set.next()) {
                            sum += set.getInt(1);
                        }
                        same(sum, 4560);
                    }
                }
                db.commit();
            }
        });
        CHECKS.put("a result says its columns", table("id integer PRIMARY KEY, n numeric(8,2) NOT NULL", (db, t) -> {
            try (PreparedStatement statement = db.prepareStatement("SELECT id, n, n * 2 AS twice, upper('x') FROM " + t)) {
                List<String> said = new ArrayList<>();
                for (int i = 1; i <= 4; i++) {
                    said.add(statement.getMetaData().getColumnLabel(i) + " " + statement.getMetaData().getColumnTypeName(i));
                }
                same(said, "[id int4, n numeric, twice numeric, upper text]");
                same(statement.getMetaData().getPrecision(2) + " " + statement.getMetaData().getScale(2), "8 2");
            }
        }));
        CHECKS.put("a result says what its columns are of", table("id serial PRIMARY KEY, n integer NOT NULL", (db, t) -> {
            try (Statement statement = db.createStatement(); ResultSet set = statement.executeQuery("SELECT id AS x, n FROM " + t)) {
                same(set.getMetaData().isAutoIncrement(1) + " " + set.getMetaData().isNullable(2) + " " + ((org.postgresql.PGResultSetMetaData) set.getMetaData()).getBaseTableName(1),
                    "true 0 " + t);
            }
        }));
        CHECKS.put("an array as a parameter chooses rows", table("id integer PRIMARY KEY", (db, t) -> {
            run(db, "INSERT INTO " + t + " VALUES (1), (2), (3)");
            same(rows(db, "SELECT id FROM " + t + " WHERE id = ANY(?) ORDER BY id", db.createArrayOf("integer", new Object[] {1, 3})), "[[1], [3]]");
        }));
        CHECKS.put("copy goes in and out", table("id integer PRIMARY KEY, t text", (db, t) -> {
            CopyManager copy = db.unwrap(PGConnection.class).getCopyAPI();
            same(copy.copyIn("COPY " + t + " FROM STDIN WITH (FORMAT csv)", new StringReader("1,one\n2,\"a \"\"b\"\", c\"\n3,\n")), 3);
            StringWriter out = new StringWriter();
            same(copy.copyOut("COPY (SELECT * FROM " + t + " ORDER BY id) TO STDOUT WITH (FORMAT csv)", out), 3);
            same(out, "1,one\n2,\"a \"\"b\"\", c\"\n3,\n");
            same(state(() -> copy.copyIn("COPY " + t + " FROM STDIN", new StringReader("x\ty\tz\n"))), "22P04");
            same(rows(db, "SELECT count(*) FROM " + t), "[[3]]");
        }));
        CHECKS.put("a statement that takes too long is cancelled", () -> {
            try (Connection db = connect(); Statement statement = db.createStatement()) {
                statement.setQueryTimeout(1);
                same(state(() -> statement.executeQuery("SELECT count(*) FROM generate_series(1, 1000000000000)")), "57014");
                same(rows(db, "SELECT 1"), "[[1]]");
            }
        });
        CHECKS.put("the driver lists tables and views", table("id integer PRIMARY KEY", (db, t) -> {
            run(db, "CREATE VIEW " + t + "_view AS SELECT id FROM " + t);
            try (ResultSet set = db.getMetaData().getTables(null, "public", t + "%", new String[] {"TABLE", "VIEW"})) {
                same(columns(set, "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE"), "[[public, " + t + ", TABLE], [public, " + t + "_view, VIEW]]");
            } finally {
                run(db, "DROP VIEW " + t + "_view");
            }
        }));
        CHECKS.put("the driver lists schemas and types", () -> {
            try (Connection db = connect()) {
                try (ResultSet set = db.getMetaData().getSchemas()) {
                    same(columns(set, "TABLE_SCHEM").contains(List.of("public")), true);
                }
                try (ResultSet set = db.getMetaData().getTypeInfo()) {
                    same(columns(set, "TYPE_NAME").contains(List.of("int8")), true);
                }
                try (ResultSet set = db.getMetaData().getTableTypes()) {
                    same(columns(set, "TABLE_TYPE").contains(List.of("TABLE")), true);
                }
            }
        });
        CHECKS.put("the driver lists columns", table("id integer PRIMARY KEY, n numeric(8,2) NOT NULL DEFAULT 1, v varchar(9)", (db, t) -> {
            try (ResultSet set = db.getMetaData().getColumns(null, "public", t, null)) {
                same(columns(set, "COLUMN_NAME", "TYPE_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS", "IS_NULLABLE", "ORDINAL_POSITION"),
                    "[[id, int4, 10, 0, NO, 1], [n, numeric, 8, 2, NO, 2], [v, varchar, 9, 0, YES, 3]]");
            }
        }));
        CHECKS.put("the driver lists primary keys", table("a integer, b integer, PRIMARY KEY (b, a)", (db, t) -> {
            try (ResultSet set = db.getMetaData().getPrimaryKeys(null, "public", t)) {
                same(columns(set, "COLUMN_NAME", "KEY_SEQ", "PK_NAME"), "[[b, 1, " + t + "_pkey], [a, 2, " + t + "_pkey]]");
            }
        }));
        CHECKS.put("the driver lists indexes", table("id integer PRIMARY KEY, n integer, m integer", (db, t) -> {
            run(db, "CREATE UNIQUE INDEX " + t + "_n ON " + t + " (n, m)");
            try (ResultSet set = db.getMetaData().getIndexInfo(null, "public", t, false, true)) {
                same(columns(set, "INDEX_NAME", "NON_UNIQUE", "ORDINAL_POSITION", "COLUMN_NAME"),
                    "[[" + t + "_n, false, 1, n], [" + t + "_n, false, 2, m], [" + t + "_pkey, false, 1, id]]");
            }
        }));
        CHECKS.put("the driver lists no foreign keys where there are none", table("id integer PRIMARY KEY", (db, t) -> {
            try (ResultSet set = db.getMetaData().getImportedKeys(null, "public", t)) {
                same(columns(set, "PKTABLE_NAME"), "[]");
            }
        }));
    }

    public static void main(String[] words) {
        checks();
        CHECKS.forEach((name, act) -> {
            String why = "";
            try {
                act.run();
            } catch (Throwable error) {
                String kind = error instanceof AssertionError ? "" : error.getClass().getSimpleName() + ": ";
                why = (kind + error.getMessage()).replaceAll("\\s+", " ");
            }
            System.out.println("CHECK\t" + name.replace(' ', '_') + "\t" + why);
        });
    }
}
