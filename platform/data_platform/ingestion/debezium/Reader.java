import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.debezium.document.DocumentReader;
import io.debezium.document.DocumentWriter;
import io.debezium.engine.DebeziumEngine;
import io.debezium.embedded.Connect;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import io.debezium.relational.history.AbstractSchemaHistory;
import io.debezium.relational.history.HistoryRecord;
import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.StringWriter;
import java.lang.management.ManagementFactory;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import javax.management.MBeanServer;
import javax.management.ObjectName;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.runtime.WorkerConfig;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.storage.OffsetBackingStore;
import org.apache.kafka.connect.util.Callback;

/**
 * Debezium's engine as a process that prints what it reads, one JSON array a line, on its standard output.
 *
 * Its standard input has one line of JSON with all that it is given (properties, offsets, schema history), then lines
 * "ack N" (everything up to the position with that number is committed) and "stop". At the end of its standard input
 * it ends at once, for nobody is left to read what it prints. What the lines mean is in `protocol.py` beside this file.
 */
public final class Reader {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final OutputStream OUT = new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 18);
    private static final Object OUT_LOCK = new Object();
    private static final String BITS = "io.debezium.data.Bits";
    private static final int QUEUE = 8192;
    /** Types whose values have no zone; as texts they are written with that of UTC. */
    private static final Set<String> ZONELESS =
        Set.of("io.debezium.time.IsoDate", "io.debezium.time.IsoTime", "io.debezium.time.IsoTimestamp");
    private static final String MARK = "data-platform";
    private static final String RUN = java.util.UUID.randomUUID().toString();
    private static final long MARK_AGAIN = 3_000_000_000L;

    private static JsonNode given;
    private static String transactionTopic;
    private static final Map<Schema, Integer> schemas = new IdentityHashMap<>();
    private static final ArrayDeque<Candidate> candidates = new ArrayDeque<>();
    private static long numbers = 0;
    private static int schemaNumbers = 0;
    private static volatile long acknowledged = 0;
    private static volatile long settled = 0;
    private static volatile boolean ended = false;
    private static volatile long changedAt = 0;
    private static volatile long handled = 0;
    private static volatile long newest = 0;
    private static boolean cleared = false;
    private static volatile boolean isMarkSeen = false;

    /** A record after which reading can go on, and the number under which its offset was printed. */
    private record Candidate(long number, RecordChangeEvent<SourceRecord> event) { }

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err);
        java.util.logging.LogManager.getLogManager().reset();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8), 1 << 16);
        given = JSON.readTree(in.readLine());
        try {
            read(in);
        } catch (Throwable error) {
            print(line -> { line.writeString("failed"); line.writeString(causes(error)); });
        }
        synchronized (OUT_LOCK) {
            OUT.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private static void read(BufferedReader in) throws Exception {
        Properties properties = new Properties();
        given.get("properties").properties().forEach(one -> properties.put(one.getKey(), one.getValue().asText()));
        properties.put("offset.storage", Offsets.class.getName());
        properties.put("schema.history.internal", History.class.getName());
        transactionTopic = properties.getProperty("topic.prefix") + ".transaction";
        properties.put("max.queue.size", String.valueOf(QUEUE));
        properties.put("max.batch.size", String.valueOf(QUEUE / 4));
        long settle = given.get("settle").asLong();
        End end = new End(given.get("jdbc"));
        CompletableFuture<String> over = new CompletableFuture<>();
        DebeziumEngine<RecordChangeEvent<SourceRecord>> engine = DebeziumEngine
            .create(ChangeEventFormat.of(Connect.class))
            .using(properties)
            .using(Reader.class.getClassLoader())
            .using((boolean success, String message, Throwable error) ->
                over.complete(success ? "" : error == null ? message : causes(error)))
            .notifying(Reader::handle)
            .build();
        Thread running = new Thread(engine, "engine");
        running.start();
        Thread told = new Thread(() -> listen(in, engine), "told");
        told.setDaemon(true);
        told.start();
        while (!over.isDone()) {
            status(end, settle);
            Thread.sleep(100);
        }
        String failure = over.get();
        if (!failure.isEmpty() && !ended) {
            print(line -> { line.writeString("failed"); line.writeString(failure); });
        }
    }

    /** Follow what the parent says; end with it. */
    private static void listen(BufferedReader in, DebeziumEngine<?> engine) {
        try {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                if (line.startsWith("ack ")) {
                    acknowledged = Long.parseLong(line.substring(4));
                } else if (line.equals("stop")) {
                    ended = true;
                    stop(engine);
                }
            }
        } catch (IOException error) {
            // The parent is gone, as at the end of the input.
        }
        Runtime.getRuntime().halt(3);
    }

    private static void stop(DebeziumEngine<?> engine) {
        Thread closing = new Thread(() -> {
            try {
                // What was acknowledged last goes to the source with the next event: heartbeats come twice a second. Only
                // PostgreSQL keeps its log for us.
                boolean keeps = given.get("jdbc").path("kind").asText().equals("postgresql");
                for (int waited = 0; keeps && settled < acknowledged && waited < 20; waited++) {
                    Thread.sleep(100);
                }
                engine.close();
            } catch (Exception error) {
                System.err.println("close: " + causes(error));
            }
            Runtime.getRuntime().halt(0);
        }, "closing");
        closing.start();
    }

    private static void handle(
            List<RecordChangeEvent<SourceRecord>> events,
            DebeziumEngine.RecordCommitter<RecordChangeEvent<SourceRecord>> committer) throws InterruptedException {
        settle(committer);
        RecordChangeEvent<SourceRecord> last = null;
        for (RecordChangeEvent<SourceRecord> event : events) {
            SourceRecord record = event.record();
            if (record.value() instanceof Struct value && !ended) {
                last = write(event, record, value) ? event : null;
            }
        }
        handled += events.size();
        if (last != null) {
            position("rest", last);
        }
        synchronized (OUT_LOCK) {
            try {
                OUT.flush();
            } catch (IOException error) {
                Runtime.getRuntime().halt(3);
            }
        }
    }

    /** Let the source know what is committed. */
    private static void settle(DebeziumEngine.RecordCommitter<RecordChangeEvent<SourceRecord>> committer)
            throws InterruptedException {
        long upto = acknowledged;
        Map<Map<String, ?>, RecordChangeEvent<SourceRecord>> newest = new LinkedHashMap<>();
        while (!candidates.isEmpty() && candidates.peekFirst().number() <= upto) {
            RecordChangeEvent<SourceRecord> event = candidates.pollFirst().event();
            newest.put(new HashMap<>(event.record().sourcePartition()), event);
        }
        if (!newest.isEmpty()) {
            for (RecordChangeEvent<SourceRecord> event : newest.values()) {
                committer.markProcessed(event);
            }
            committer.markBatchFinished();
            if (!cleared) {
                cleared = true;
                if (!given.get("after").isEmpty()) {
                    try (Connection connection = connect(given.get("jdbc"))) {
                        for (JsonNode each : given.get("after")) {
                            run(connection, each);
                        }
                    } catch (SQLException error) {
                        System.err.println("after the commit: " + causes(error));
                    }
                }
            }
        }
        settled = upto;
    }

    /** Print a record; whether it was a change of a row. */
    private static boolean write(RecordChangeEvent<SourceRecord> event, SourceRecord record, Struct value) {
        if (value.schema().field("op") != null && value.schema().field("source") != null) {
            if ("m".equals(value.getString("op"))) {
                mark(value);
                return false;
            }
            change(record, value);
            changedAt = System.nanoTime();
            return true;
        }
        if (record.topic().equals(transactionTopic)) {
            boolean begins = "BEGIN".equals(value.getString("status"));
            if (begins) {
                print(line -> line.writeString("begin"));
            } else {
                position("end", event);
            }
        } else {
            position("heartbeat", event);
        }
        return false;
    }

    /** Take note of a message in the log, if it is one of ours. */
    private static void mark(Struct value) {
        Struct message = value.getStruct("message");
        if (message != null && MARK.equals(message.getString("prefix")) && message.get("content") != null) {
            Object content = message.get("content");
            byte[] bytes = content instanceof ByteBuffer buffer ? buffer.array() : (byte[]) content;
            isMarkSeen = isMarkSeen || RUN.equals(new String(bytes, StandardCharsets.UTF_8));
        }
    }

    /** Print the offset of a record after which reading can go on. */
    private static void position(String kind, RecordChangeEvent<SourceRecord> event) {
        SourceRecord record = event.record();
        if (isCopying(record.sourceOffset())) {
            return;
        }
        long number = ++numbers;
        candidates.addLast(new Candidate(number, event));
        print(line -> {
            line.writeString(kind);
            line.writeNumber(number);
            line.writeString(JSON.writeValueAsString(record.sourcePartition()));
            line.writeString(JSON.writeValueAsString(record.sourceOffset()));
        });
    }

    private static void change(SourceRecord record, Struct value) {
        String op = value.getString("op");
        Struct source = value.getStruct("source");
        Schema after = value.schema().field("after") == null ? null : value.schema().field("after").schema();
        Schema key = record.keySchema();
        Integer known = after == null ? null : schemas.get(after);
        int id = known == null ? schema(source, after, key, !op.equals("t")) : known;
        Object moment = source.get("ts_ms");
        String snapshot = source.schema().field("snapshot") == null ? null : String.valueOf(source.get("snapshot"));
        boolean copied = snapshot != null && !snapshot.equals("false") && !snapshot.equals("null");
        if (!copied && moment instanceof Number millis) {
            newest = millis.longValue();
        }
        print(line -> {
            line.writeString("row");
            line.writeNumber(id);
            line.writeString(op);
            if (copied || moment == null) {
                line.writeNull();
            } else {
                line.writeNumber(((Number) moment).longValue());
            }
            row(line, op.equals("d") ? (Struct) record.key() : null);
            row(line, op.equals("d") || op.equals("t") ? null : value.get("after"));
            if (op.equals("t")) {
                line.writeString(place(source));
            }
        });
    }

    /** Where an event stands in the log, as far as its source says it. */
    private static String place(Struct source) {
        StringBuilder text = new StringBuilder();
        for (String name : new String[] {"gtid", "file", "pos", "lsn", "commit_lsn", "change_lsn", "scn"}) {
            if (source.schema().field(name) != null && source.get(name) != null) {
                text.append(text.length() == 0 ? "" : " ").append(source.get(name));
            }
        }
        return text.toString();
    }

    private static boolean isCopying(Map<String, ?> offset) {
        return offset.get("snapshot") != null && !Boolean.TRUE.equals(offset.get("snapshot_completed"));
    }

    /** Print what a table's columns are, and the number that its rows have from now on. */
    private static int schema(Struct source, Schema after, Schema key, boolean lasts) {
        int id = ++schemaNumbers;
        if (after != null && lasts) {
            schemas.put(after, id);
        }
        print(line -> {
            line.writeString("schema");
            line.writeNumber(id);
            for (String name : new String[] {"db", "schema", "table", "collection"}) {
                Field field = source.schema().field(name);
                line.writeString(field == null || source.get(field) == null ? "" : String.valueOf(source.get(field)));
            }
            names(line, key);
            names(line, after);
            line.writeStartArray();
            if (after != null && after.type() == Schema.Type.STRUCT) {
                for (Field field : after.fields()) {
                    if (field.schema().type() == Schema.Type.BYTES
                            && (field.schema().name() == null || field.schema().name().equals(BITS))) {
                        line.writeString(field.name());
                    }
                }
            }
            line.writeEndArray();
        });
        return id;
    }

    private static void names(JsonGenerator line, Schema schema) throws IOException {
        line.writeStartArray();
        if (schema != null && schema.type() == Schema.Type.STRUCT) {
            for (Field field : schema.fields()) {
                line.writeString(field.name());
            }
        }
        line.writeEndArray();
    }

    private static void row(JsonGenerator line, Object value) throws IOException {
        if (value == null) {
            line.writeNull();
        } else if (value instanceof Struct struct) {
            line.writeStartArray();
            for (Field field : struct.schema().fields()) {
                String text = text(field.schema(), struct.getWithoutDefault(field.name()));
                if (text == null) {
                    line.writeNull();
                } else {
                    line.writeString(text);
                }
            }
            line.writeEndArray();
        } else {
            line.writeString(value.toString());
        }
    }

    /** A value as the source's own text of it; nested values as JSON. */
    private static String text(Schema schema, Object value) throws IOException {
        if (value == null) {
            return null;
        }
        if (value instanceof String text && text.endsWith("Z") && ZONELESS.contains(String.valueOf(schema.name()))) {
            return text.substring(0, text.length() - 1);
        }
        if (value instanceof String || value instanceof Boolean) {
            return value.toString();
        }
        if (value instanceof Number number) {
            return schema.name() == null ? plain(number) : moment(schema.name(), number);
        }
        if (value instanceof byte[] bytes) {
            return HexFormat.of().formatHex(bytes);
        }
        if (value instanceof ByteBuffer buffer) {
            byte[] bytes = new byte[buffer.remaining()];
            buffer.duplicate().get(bytes);
            return HexFormat.of().formatHex(bytes);
        }
        if (value instanceof java.util.Date date) {
            return date.toInstant().toString();
        }
        StringWriter written = new StringWriter();
        try (JsonGenerator json = JSON.createGenerator(written)) {
            nested(json, schema, value);
        }
        return written.toString();
    }

    private static void nested(JsonGenerator json, Schema schema, Object value) throws IOException {
        if (value == null) {
            json.writeNull();
        } else if (value instanceof Struct struct) {
            json.writeStartObject();
            for (Field field : struct.schema().fields()) {
                json.writeFieldName(field.name());
                nested(json, field.schema(), struct.getWithoutDefault(field.name()));
            }
            json.writeEndObject();
        } else if (value instanceof Collection<?> items) {
            json.writeStartArray();
            for (Object item : items) {
                nested(json, schema.valueSchema(), item);
            }
            json.writeEndArray();
        } else if (value instanceof Map<?, ?> map) {
            json.writeStartObject();
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                json.writeFieldName(String.valueOf(entry.getKey()));
                nested(json, schema.valueSchema(), entry.getValue());
            }
            json.writeEndObject();
        } else if (value instanceof Boolean flag) {
            json.writeBoolean(flag);
        } else if (value instanceof Number number && schema.name() == null) {
            json.writeNumber(plain(number));
        } else {
            json.writeString(text(schema, value));
        }
    }

    private static String plain(Number number) {
        return number instanceof BigDecimal decimal ? decimal.toPlainString() : number.toString();
    }

    /** Times that are numbers, by the name of their type, as ISO 8601. */
    private static String moment(String type, Number number) {
        long value = number.longValue();
        switch (type) {
            case "io.debezium.time.Date":
            case "org.apache.kafka.connect.data.Date":
                return value == Integer.MAX_VALUE ? "infinity" : value == Integer.MIN_VALUE ? "-infinity"
                    : LocalDate.ofEpochDay(value).toString();
            case "io.debezium.time.Timestamp":
                return timestamp(Math.floorDiv(value, 1000L), Math.floorMod(value, 1000L) * 1_000_000);
            case "io.debezium.time.MicroTimestamp":
                return value == 9223372036825200000L ? "infinity" : value == -9223372036832400000L ? "-infinity"
                    : timestamp(Math.floorDiv(value, 1_000_000L), Math.floorMod(value, 1_000_000L) * 1000);
            case "io.debezium.time.NanoTimestamp":
                return timestamp(Math.floorDiv(value, 1_000_000_000L), Math.floorMod(value, 1_000_000_000L));
            case "io.debezium.time.Time":
                return clock(value * 1000);
            case "io.debezium.time.MicroTime":
                return clock(value);
            case "io.debezium.time.NanoTime":
                return clock(value / 1000) + (value % 1000 == 0 ? "" : String.format("%03d", Math.abs(value % 1000)));
            default:
                return plain(number);
        }
    }

    private static String timestamp(long seconds, long nanos) {
        String text = LocalDateTime.ofEpochSecond(seconds, (int) nanos, ZoneOffset.UTC).toString();
        return nanos == 0 && seconds % 60 == 0 ? text + ":00" : text;
    }

    /** A time of day, or a duration as MySQL has it: it may be negative, or longer than a day. */
    private static String clock(long micros) {
        long left = Math.abs(micros);
        return String.format("%s%02d:%02d:%02d.%06d", micros < 0 ? "-" : "", left / 3_600_000_000L,
            left / 60_000_000L % 60, left / 1_000_000L % 60, left % 1_000_000L);
    }

    /** Print how far the connector is, by what it tells of itself. */
    private static void status(End end, long settle) throws Exception {
        MBeanServer beans = ManagementFactory.getPlatformMBeanServer();
        boolean connected = false;
        List<String> captured = new ArrayList<>();
        for (ObjectName name : beans.queryNames(new ObjectName("debezium.*:type=connector-metrics,*"), null)) {
            if ("streaming".equals(name.getKeyProperty("context"))
                    && Boolean.TRUE.equals(attribute(beans, name, "Connected"))) {
                connected = true;
                end.look(attribute(beans, name, "BinlogFilename"), attribute(beans, name, "BinlogPosition"),
                    attribute(beans, name, "QueueRemainingCapacity"));
            }
            if (attribute(beans, name, "CapturedTables") instanceof String[] tables) {
                captured.addAll(List.of(tables));
            }
        }
        boolean streams = connected;
        boolean done = connected && end.isReached(settle);
        print(line -> {
            line.writeString("status");
            line.writeBoolean(streams);
            line.writeBoolean(done);
            line.writeStartArray();
            for (String table : captured) {
                line.writeString(table);
            }
            line.writeEndArray();
            line.writeString(end.failure);
        });
        synchronized (OUT_LOCK) {
            OUT.flush();
        }
    }

    /**
     * The end of the log as it was when the reading began. PostgreSQL has a message put there, which comes when all that
     * was before it did; the binary logs of MySQL and MariaDB tell where they end, and the reader where it is. Of others
     * it is taken for reached when an event was committed after the beginning, or nothing came for a while.
     */
    private static final class End {
        private final long startedMillis = System.currentTimeMillis();
        private final String kind;
        private boolean marks = false;
        private long markedAt = 0;
        private boolean isEmpty = false;
        private Connection connection;
        private String target = "";
        private long targetPosition;
        private boolean streams = false;
        private long streamsSince;
        private boolean passed = false;
        private long passedAt;
        private long handledWhenPassed;
        private String failure = "";

        End(JsonNode jdbc) throws SQLException {
            kind = jdbc.isNull() ? "" : jdbc.get("kind").asText();
            if (kind.equals("postgresql")) {
                connection = connect(jdbc);
                // A standby writes nothing: the end of its log is taken for reached when it is silent.
                marks = "f".equals(one("select pg_is_in_recovery()")) && "t".equals(
                    one("select current_setting('server_version_num')::int >= 140000"));
                for (JsonNode each : given.get("before")) {
                    run(connection, each);
                }
            } else if (kind.equals("binlog")) {
                try (Connection asked = connect(jdbc)) {
                    connection = asked;
                    log();
                } catch (SQLException error) {
                    failure = causes(error);
                }
                connection = null;
            }
        }

        private void log() throws SQLException {
            try (PreparedStatement asked = connection.prepareStatement(statement()); ResultSet rows = asked.executeQuery()) {
                if (rows.next()) {
                    target = rows.getString(1);
                    targetPosition = rows.getLong(2);
                }
            }
        }

        /** MySQL 8.4 took the old statement away. */
        private String statement() throws SQLException {
            boolean renamed = connection.getMetaData().getDatabaseProductName().contains("MySQL")
                && connection.getMetaData().getDatabaseMajorVersion() * 100
                    + connection.getMetaData().getDatabaseMinorVersion() >= 804;
            return renamed ? "show binary log status" : "show master status";
        }

        private String one(String sql, String... values) throws SQLException {
            try (PreparedStatement prepared = connection.prepareStatement(sql)) {
                for (int at = 0; at < values.length; at++) {
                    prepared.setString(at + 1, values[at]);
                }
                try (ResultSet rows = prepared.executeQuery()) {
                    return rows.next() ? rows.getString(1) : null;
                }
            }
        }

        /** See how far the reader of the log is. */
        void look(Object file, Object position, Object queued) throws SQLException {
            isEmpty = Integer.valueOf(QUEUE).equals(queued);
            if (!streams) {
                streams = true;
                streamsSince = System.nanoTime();
            }
            if (passed) {
                return;
            }
            if (marks) {
                // What was committed before this message comes before it.
                // One that is written while the connector looks for its place may be passed over: then another follows.
                if (markedAt == 0 || System.nanoTime() - markedAt > MARK_AGAIN) {
                    one("select pg_logical_emit_message(true, ?, ?)", MARK, RUN);
                    markedAt = System.nanoTime();
                }
                passed = isMarkSeen;
            } else if (kind.equals("binlog") && failure.isEmpty()) {
                passed = file instanceof String name && position instanceof Long at && isAtOrAfter(name, at);
            } else {
                passed = newest > startedMillis;
            }
            handledWhenPassed = handled;
            passedAt = System.nanoTime();
        }

        private boolean isAtOrAfter(String file, long position) {
            int order = file.length() == target.length() ? file.compareTo(target) : file.length() - target.length();
            return order > 0 || (order == 0 && position >= targetPosition);
        }

        /** Whether all was printed that was there at the beginning. */
        boolean isReached(long settle) {
            if (!streams) {
                return false;
            }
            if (marks) {
                return passed;
            }
            long now = System.nanoTime();
            long quiet = (now - Math.max(changedAt, streamsSince)) / 1_000_000;
            boolean tells = kind.equals("binlog") && failure.isEmpty();
            if (passed && tells) {
                quiet = Math.min(quiet, (now - passedAt) / 1_000_000);
                // What was on its way when the reader passed the end is no more than the queue holds.
                return (quiet >= Math.min(settle, 1000) && isEmpty) || handled - handledWhenPassed > 2L * QUEUE;
            }
            return (!tells && quiet >= settle) || (passed && handled - handledWhenPassed > 2L * QUEUE);
        }
    }

    private static Object attribute(MBeanServer beans, ObjectName name, String attribute) {
        try {
            return beans.getAttribute(name, attribute);
        } catch (Exception error) {
            return null;
        }
    }

    private static String causes(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable one = error; one != null; one = one.getCause()) {
            String said = one.getMessage() == null ? one.getClass().getSimpleName() : one.getMessage();
            if (text.indexOf(said) < 0) {
                text.append(text.length() == 0 ? "" : ": ").append(said);
            }
        }
        return text.toString();
    }

    private interface Writing {
        void to(JsonGenerator line) throws IOException;
    }

    private static void print(Writing writing) {
        synchronized (OUT_LOCK) {
            try {
                JsonGenerator line = JSON.createGenerator(OUT);
                line.disable(JsonGenerator.Feature.AUTO_CLOSE_TARGET);
                line.disable(JsonGenerator.Feature.FLUSH_PASSED_TO_STREAM);
                line.writeStartArray();
                writing.to(line);
                line.writeEndArray();
                line.close();
                OUT.write('\n');
            } catch (IOException error) {
                Runtime.getRuntime().halt(3);
            }
        }
    }

    private static Connection connect(JsonNode jdbc) throws SQLException {
        Properties properties = new Properties();
        jdbc.get("properties").properties().forEach(one -> properties.put(one.getKey(), one.getValue().asText()));
        return DriverManager.getConnection(jdbc.get("url").asText(), properties);
    }

    /** Run one statement, its text and then its values. */
    private static void run(Connection connection, JsonNode statement) throws SQLException {
        try (PreparedStatement prepared = connection.prepareStatement(statement.get(0).asText())) {
            for (int at = 1; at < statement.size(); at++) {
                prepared.setString(at, statement.get(at).asText());
            }
            prepared.execute();
        }
    }

    /**
     * Offsets as the parent gave them, and those of which it said since that they are committed: the connector asks here
     * for what it may let the source forget.
     */
    public static final class Offsets implements OffsetBackingStore {
        private final Map<JsonNode, ByteBuffer> offsets = new HashMap<>();

        @Override
        public synchronized void start() {
            try {
                for (Map.Entry<String, JsonNode> one : given.get("offsets").properties()) {
                    byte[] bytes = one.getValue().asText().getBytes(StandardCharsets.UTF_8);
                    offsets.putIfAbsent(JSON.readTree(one.getKey()), ByteBuffer.wrap(bytes));
                }
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        public void stop() { }

        @Override
        public void configure(WorkerConfig config) { }

        @Override
        public synchronized Future<Map<ByteBuffer, ByteBuffer>> get(Collection<ByteBuffer> keys) {
            Map<ByteBuffer, ByteBuffer> found = new HashMap<>();
            for (ByteBuffer key : keys) {
                ByteBuffer value = offsets.get(partition(key));
                if (value != null) {
                    found.put(key, value.duplicate());
                }
            }
            return CompletableFuture.completedFuture(found);
        }

        @Override
        public synchronized Future<Void> set(Map<ByteBuffer, ByteBuffer> values, Callback<Void> callback) {
            values.forEach((key, value) -> offsets.put(partition(key), value.duplicate()));
            if (callback != null) {
                callback.onCompletion(null, null);
            }
            return CompletableFuture.completedFuture(null);
        }

        /** Keys are the name of the engine and the partition. */
        private static JsonNode partition(ByteBuffer key) {
            byte[] bytes = new byte[key.remaining()];
            key.duplicate().get(bytes);
            try {
                return JSON.readTree(bytes).get(1);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        public Set<Map<String, Object>> connectorPartitions(String connector) {
            return Set.of();
        }
    }

    /** The history of the tables' schemas as the parent gave it; what comes to it is printed. */
    public static final class History extends AbstractSchemaHistory {
        private final List<HistoryRecord> records = new ArrayList<>();

        @Override
        public void start() {
            super.start();
            try {
                for (JsonNode one : given.get("history")) {
                    records.add(new HistoryRecord(DocumentReader.defaultReader().read(one.asText())));
                }
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        protected synchronized void storeRecord(HistoryRecord record) {
            try {
                String text = DocumentWriter.defaultWriter().write(record.document());
                print(line -> { line.writeString("history"); line.writeString(text); });
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
            records.add(record);
        }

        @Override
        protected synchronized void recoverRecords(Consumer<HistoryRecord> each) {
            records.forEach(each);
        }

        @Override
        public boolean exists() {
            return !records.isEmpty();
        }

        @Override
        public boolean storageExists() {
            return true;
        }
    }
}
