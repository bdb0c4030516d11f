// The REST catalog of Apache Iceberg's own tests over a catalog in SQLite, on a port of the loopback, and what the
// tests have Iceberg's Java library do to a table that PyIceberg cannot: compact it, delete by position and by equality.

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.File;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.DataFile;
import org.apache.iceberg.DataFiles;
import org.apache.iceberg.DeleteFile;
import org.apache.iceberg.FileFormat;
import org.apache.iceberg.FileMetadata;
import org.apache.iceberg.FileScanTask;
import org.apache.iceberg.Table;
import org.apache.iceberg.catalog.Catalog;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.io.CloseableIterable;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

public class Lakes {
  public static void main(String[] args) throws Exception {
    int port = Integer.parseInt(args[0]);
    String folder = args[1];
    String token = args[2];
    Catalog catalog = CatalogUtil.buildIcebergCatalog("rest", Map.of(
        "catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog",
        "uri", "jdbc:sqlite:" + folder + "/catalog.sqlite",
        "jdbc.schema-version", "V1",
        "warehouse", "file://" + folder + "/warehouse"), new Configuration());
    ServletContextHandler root = new ServletContextHandler();
    root.addServlet(new ServletHolder(new Acts(catalog)), "/act");
    root.addServlet(new ServletHolder(new Guarded(catalog, token)), "/*");
    Server server = new Server(new InetSocketAddress("127.0.0.1", port));
    server.setHandler(root);
    server.start();
    server.join();
  }

  static class Guarded extends RESTCatalogServlet {
    private final String token;

    Guarded(Catalog catalog, String token) {
      super(new RESTCatalogAdapter(catalog));
      this.token = token;
    }

    @Override
    protected void service(HttpServletRequest request, HttpServletResponse response)
        throws IOException, jakarta.servlet.ServletException {
      if (("Bearer " + token).equals(request.getHeader("Authorization"))) {
        super.service(request, response);
        return;
      }
      response.setStatus(401);
      response.setContentType("application/json");
      response.getWriter().write(
          "{\"error\":{\"message\":\"no such token\",\"type\":\"NotAuthorizedException\",\"code\":401}}");
    }
  }

  static class Acts extends HttpServlet {
    private final Catalog catalog;

    Acts(Catalog catalog) {
      this.catalog = catalog;
    }

    @Override
    protected void doPost(HttpServletRequest request, HttpServletResponse response) throws IOException {
      Table table = catalog.loadTable(TableIdentifier.parse(request.getParameter("table")));
      String path = request.getParameter("file");
      long rows = Long.parseLong(request.getParameter("rows"));
      long size = new File(path).length();
      switch (request.getParameter("do")) {
        case "compact" -> {
          Set<DataFile> old = new HashSet<>();
          try (CloseableIterable<FileScanTask> tasks = table.newScan().planFiles()) {
            tasks.forEach(task -> old.add(task.file()));
          }
          DataFile one = DataFiles.builder(table.spec()).withPath("file:" + path).withFormat(FileFormat.PARQUET)
              .withRecordCount(rows).withFileSizeInBytes(size).build();
          table.newRewrite().rewriteFiles(old, Set.of(one)).commit();
        }
        case "delete" -> table.newRowDelta().addDeletes(
            deletes(table, path, rows, size).ofPositionDeletes().build()).commit();
        case "equality" -> table.newRowDelta().addDeletes(
            deletes(table, path, rows, size).ofEqualityDeletes(1).build()).commit();
        default -> throw new IOException("nothing such is done here");
      }
    }

    private static FileMetadata.Builder deletes(Table table, String path, long rows, long size) {
      return FileMetadata.deleteFileBuilder(table.spec()).withPath("file:" + path).withFormat(FileFormat.PARQUET)
          .withRecordCount(rows).withFileSizeInBytes(size);
    }
  }
}
