package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"strings"
)

const netlinkPath = `"github.com/vishvananda/netlink"`

// listing is a method of the netlink library that reads a whole table.
var listing = regexp.MustCompile(`^(Link|Addr|Route|Rule|Neigh|NeighProxy|Qdisc|Class|Filter|Chain|XfrmState|XfrmPolicy|BridgeVlan)List(Filtered)?$`)

// UnguardedDumps returns one line for each place outside the tests that reads a table of the kernel and would believe, or
// give up on, a list that a change interrupted.
func UnguardedDumps(files []File) ([]string, error) {
	var faults []string
	for _, f := range files {
		if path.Ext(f.Path) != ".go" || strings.HasSuffix(f.Path, "_test.go") || strings.HasPrefix(f.Path, "tests/") || strings.HasPrefix(f.Path, "netdump/") {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, f.Path, f.Data, 0)
		if err != nil {
			return nil, err
		}
		if !imports(tree, netlinkPath) {
			continue
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && isSelector(call.Fun, "netdump", "List") {
				// RouteList gives nothing away when it was interrupted, so List does not help it.
				faults = append(faults, named(set, call, func(name string) bool { return strings.HasPrefix(name, "Route") }, "netdump.Routes")...)
				return false
			}
			if s, ok := n.(*ast.SelectorExpr); ok && listing.MatchString(s.Sel.Name) {
				faults = append(faults, fault(set, s, "netdump"))
			}
			return true
		})
	}
	return faults, nil
}

// named are the listings below n whose names are refused.
func named(set *token.FileSet, n ast.Node, refused func(name string) bool, instead string) (faults []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && listing.MatchString(s.Sel.Name) && refused(s.Sel.Name) {
			faults = append(faults, fault(set, s, instead))
		}
		return true
	})
	return faults
}

func fault(set *token.FileSet, s *ast.SelectorExpr, instead string) string {
	return fmt.Sprintf("%s: %s may be interrupted by a change: use %s", set.Position(s.Pos()), s.Sel.Name, instead)
}

func isSelector(e ast.Expr, of, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == of
}

func imports(f *ast.File, path string) bool {
	for _, i := range f.Imports {
		if i.Path.Value == path {
			return true
		}
	}
	return false
}
