// A FerretDB that stores in SQLite: `ferretdb HOST:PORT FOLDER`. The program that FerretDB itself offers cannot be
// built from its module: a file that it embeds is not in it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	address, folder := os.Args[1], os.Args[2]
	config := ferretdb.Config{Handler: "sqlite", SQLiteURL: "file:" + folder + "/"}
	config.Listener.TCP = address

	server, err := ferretdb.New(&config)
	if err == nil {
		err = server.Run(context.Background())
	}

	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
