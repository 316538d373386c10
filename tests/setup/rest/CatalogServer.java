import java.net.InetSocketAddress;
import java.util.Map;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/** Iceberg's reference REST catalog on loopback: {@code CatalogServer PORT WAREHOUSE_DIR}. */
public class CatalogServer {
  public static void main(String[] args) throws Exception {
    int port = Integer.parseInt(args[0]);
    String warehouse = args[1];
    JdbcCatalog catalog = new JdbcCatalog();
    catalog.setConf(new org.apache.hadoop.conf.Configuration());
    catalog.initialize("rest", Map.of(
        "uri", "jdbc:sqlite:" + warehouse + "/rest-catalog.db",
        "warehouse", "file://" + warehouse,
        "jdbc.schema-version", "V1"));
    Server server = new Server(new InetSocketAddress("127.0.0.1", port));
    ServletContextHandler context = new ServletContextHandler();
    context.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
    server.setHandler(context);
    server.start();
    System.out.println("REST catalog started");
    server.join();
  }
}
